"""Sources of notebooks have neither outputs nor counts: those are in the executed copies under results/."""

import json
import sys
from pathlib import Path


def executed_cells(path: Path) -> int:
    """How many cells of a notebook have an output or a count."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return sum(bool(cell.get("outputs") or cell.get("execution_count")) for cell in cells)


folder = Path(sys.argv[1] if sys.argv[1:] else Path(__file__).resolve().parents[1] / "notebooks")
bad = [path for path in sorted(folder.rglob("*.ipynb")) if executed_cells(path)]
for path in bad:
    print(
        f"{path}: {executed_cells(path)} cells have outputs; in JupyterLab choose Edit, Clear Outputs of All Cells"
    )
sys.exit(bool(bad))
