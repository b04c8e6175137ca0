"""The measured parts of README.md, written from results/ by `python -m xalma.readme`; a test keeps them current."""

from __future__ import annotations

import json
import re
from pathlib import Path

from xalma.runtime import REPOSITORY, write_atomically

RESULTS = REPOSITORY / "results" / "tiny"
REAL_TEXT = REPOSITORY / "results" / "small-cpu"
ALMA = REPOSITORY / "results" / "alma-small-cpu"


def cost_block(results: Path = RESULTS) -> str:
    """Minutes of each notebook of the committed run, its hardware and seed, as Markdown."""
    cost = json.loads((results / "cost.json").read_text(encoding="utf-8"))
    hardware, seconds = cost["provenance"]["hardware"], cost["seconds"]
    minutes = " · ".join(f"{name[:2]} {value / 60:.1f}" for name, value in seconds.items())
    return (
        f"The notebooks took **{sum(seconds.values()) / 60:.1f} minutes** in sum on {hardware['cores']} cores "
        f"({hardware['cpu']}, {hardware['memory_gib']} GiB, no GPU); minutes a notebook: {minutes}. "
        f"Seed {cost['seed']}, commit of the last start `{cost['provenance']['commit'][:10]}`, "
        "from `results/tiny/cost.json`.\n\n"
        "A GPU run: not measured."
    )


def ladder_block(results: Path = RESULTS, metric: str = "bleu") -> str:
    """The ladder table of the committed run, as Markdown."""
    return table_block(results, f"ladder_{metric}")


def table_block(results: Path, name: str) -> str:
    """A table of the committed run without its caption and note, as Markdown."""
    lines = (results / "tables" / f"{name}.md").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))


def minutes_block(results: Path) -> str:
    """One sentence on how long a committed run on real text took."""
    cost = json.loads((results / "cost.json").read_text(encoding="utf-8"))
    hardware, minutes = cost["provenance"]["hardware"], sum(cost["seconds"].values()) / 60
    return (
        f"Profile `{results.name}` took {minutes:.0f} minutes, the sum of its notebooks, on {hardware['cores']} cores "
        f"({hardware['cpu']})."
    )


def refreshed(text: str, results: Path = RESULTS, real_text: Path = REAL_TEXT, alma: Path = ALMA) -> str:
    """README `text` with its measured blocks filled. Raises ValueError where a block's markers are missing."""
    blocks = {
        "cost": cost_block(results),
        "ladder": ladder_block(results),
        "real-text": f"{minutes_block(real_text)} Bits a byte, mean over each group's directions:\n\n"
        f"{ladder_block(real_text, 'bits_per_byte')}",
        "alma": f"{minutes_block(alma)} Means over its languages:\n\n{table_block(alma, '11_quality')}",
    }
    for name, block in blocks.items():
        pattern = re.compile(rf"(<!-- {name}:start -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"README.md has no block {name}: put <!-- {name}:start --> and <!-- {name}:end --> in it")
        text = pattern.sub(lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text)
    return text


if __name__ == "__main__":
    readme = REPOSITORY / "README.md"
    write_atomically(readme, refreshed(readme.read_text(encoding="utf-8")))
    print(f"wrote {readme}")
