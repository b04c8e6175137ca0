"""The recipe on a real base in minutes (results/real, results/real-cpu; notebook 12 shows them).

    python benchmarks/real.py pack --profile real --base DIR [--gguf FILE] --to PACK   (needs XALMA_DATA)
    python benchmarks/real.py run --profile real --pack PACK --out OUT --work WORK --workers 3 --seconds 530
    python benchmarks/real.py score --profile real --run OUT --pack PACK --base DIR    (needs XALMA_DATA)

`pack` and `score` need a tokenizer and text; `run`, on a lent GPU, needs token ids alone. What each does: real_base/.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """The command. Exit code 1 where a task of a run failed, 2 for bad input."""
    if argv and argv[0] == "run":
        from real_base.run import run_command

        return run_command(argv[1:])
    from real_base.scores import score_command

    return score_command(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
