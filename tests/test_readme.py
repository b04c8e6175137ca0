"""README's measured blocks come from the committed results."""

import json

import nbformat
import pytest

from xalma import readme


@pytest.fixture
def results(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "ladder_bleu.md").write_text(
        "**Caption**\n\n| group | base |\n|---|---|\n| 6 | 1.50 |\n\nFOOTNOTE\n"
    )
    (tmp_path / "tables" / "ladder_bits_per_byte.md").write_text("**Caption**\n\n| group | base |\n| 6 | 3.25 |\n")
    (tmp_path / "tables" / "11_quality.md").write_text("**Caption**\n\n| bitext | BLEU |\n| none | 0.5 |\n\nFOOTNOTE\n")
    hardware = {"cpu": "A CPU", "cores": 2, "memory_gib": 8.0, "gpu": None}
    cost = {
        "seconds": {"00_a": 60, "01_b": 90},
        "seed": 7,
        "provenance": {"hardware": hardware, "commit": "0123456789abcdef"},
    }
    (tmp_path / "cost.json").write_text(json.dumps(cost))
    return tmp_path


def test_blocks_are_filled_and_the_rest_is_left_alone(results):
    text = "a\n<!-- cost:start -->\nold\n<!-- cost:end -->\nb\n<!-- ladder:start -->\n<!-- ladder:end -->\nc\n"
    text += "<!-- real-text:start -->\n<!-- real-text:end -->\nd\n<!-- alma:start -->\n<!-- alma:end -->\n"
    new = readme.refreshed(text, results, results, results)
    assert "**2.5 minutes** in sum on 2 cores (A CPU, 8.0 GiB, no GPU)" in new
    assert "00 1.0 · 01 1.5" in new and "Seed 7, commit of the last start `0123456789`" in new
    assert "| 6 | 1.50 |\n<!-- ladder:end -->\nc\n" in new and "old" not in new and "FOOTNOTE" not in new
    minutes = f"Profile `{results.name}` took 2 minutes, the sum of its notebooks, on 2 cores (A CPU)."
    assert new.count(minutes) == 2
    assert "| 6 | 3.25 |\n<!-- real-text:end -->\nd\n" in new
    assert new.endswith("| none | 0.5 |\n<!-- alma:end -->\n")
    assert readme.refreshed(new, results, results, results) == new


def test_missing_marker_is_named(results):
    with pytest.raises(ValueError, match="no block cost"):
        readme.refreshed("nothing here", results)


def test_committed_readme_is_current():
    text = (readme.REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert readme.refreshed(text) == text, "run `make readme`"


def test_committed_notebooks_were_made_from_these_sources():
    sources = sorted((readme.REPOSITORY / "notebooks").glob("*.ipynb"))
    assert len(sources) == 12
    for source in sources:
        profile = "alma-tiny" if source.stem == "11_alma" else "tiny"
        executed = nbformat.read(readme.RESULTS.parent / profile / "notebooks" / source.name, as_version=4)
        written = nbformat.read(source, as_version=4)
        assert [c.source for c in executed.cells] == [c.source for c in written.cells], (
            f"run `make reproduce`: {source.name}"
        )
        counts = [c.execution_count for c in executed.cells if c.cell_type == "code"]
        assert counts == list(range(1, len(counts) + 1)), source.name
