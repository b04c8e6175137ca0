"""The harnesses of this folder at a small count: stages killed, harmed, meant to harm, and made twice at once.

`python benchmarks/reliability.py` runs them at a larger one.
"""

from __future__ import annotations

from pathlib import Path

import checkpoint_damages
import damages
import hostile
import kills
import pytest
import two_runs


@pytest.mark.parametrize(
    ("harness", "n"),
    [
        pytest.param(hostile, 0, marks=pytest.mark.slow),
        pytest.param(two_runs, 2, marks=pytest.mark.slow),
        pytest.param(two_runs, 20, marks=(pytest.mark.slow, pytest.mark.long)),
        pytest.param(damages, 6, marks=pytest.mark.slow),
        pytest.param(damages, 100, marks=(pytest.mark.slow, pytest.mark.long)),
        pytest.param(checkpoint_damages, 2, marks=pytest.mark.slow),
        pytest.param(checkpoint_damages, 60, marks=(pytest.mark.slow, pytest.mark.long)),
        pytest.param(kills, 2, marks=pytest.mark.slow),
        pytest.param(kills, 20, marks=(pytest.mark.slow, pytest.mark.long)),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_from_outside(tmp_path, micro, finished, harness, n):
    found = harness.run(tmp_path, Path(micro.run_dir), n, seed=1)
    assert not found["failed"], "\n".join(found["failed"])
    assert found["held"] == found["tried"] > 0
