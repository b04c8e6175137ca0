"""benchmarks/any_cpu.py: what it counts, that a setting reaches torch, and that the filed report is green."""

from __future__ import annotations

import json

import any_cpu
import pytest

from xalma.runtime import REPOSITORY

FILED = REPOSITORY / "results" / "any_cpu.json"
JUNIT = """<testsuites><testsuite>
<testcase classname="tests.models.test_a" name="good"/>
<testcase classname="tests.models.test_a" name="absent"><skipped message="no GPU"/></testcase>
<testcase classname="tests.models.test_a.TestClass" name="wrong"><failure>1 != 2</failure></testcase>
<testcase classname="tests.test_b" name="broken"><error>setup</error></testcase>
</testsuite></testsuites>"""
TEST = "import torch\ndef test_x(): assert torch.backends.cpu.get_cpu_capability() == 'DEFAULT'\n"


def test_a_report_of_pytest_is_counted_by_file(tmp_path):
    (tmp_path / "report.xml").write_text(JUNIT)
    assert any_cpu.counts(tmp_path / "report.xml") == {
        "tests/models/test_a.py": {"passed": 1, "skipped": 1, "failed": 1, "failures": ["wrong"]},
        "tests/test_b.py": {"passed": 0, "skipped": 0, "failed": 1, "failures": ["broken"]},
    }


def test_a_setting_reaches_torch(tmp_path, monkeypatch):
    (tmp_path / "test_x.py").write_text(TEST)
    monkeypatch.setattr(any_cpu, "REPOSITORY", tmp_path)
    (row,) = any_cpu.measure("no AVX", "test_x.py")
    assert (row["setting"], row["passed"], row["failed"]) == ("no AVX", 1, 0)
    assert row["file"].endswith("test_x.py")


def test_the_filed_report_is_green_and_made_from_its_rows():
    if not FILED.exists():
        pytest.skip(f"{FILED.name} is not made yet: python benchmarks/any_cpu.py")
    found = json.loads(FILED.read_text(encoding="utf-8"))
    assert found["rows"] and not any(row["failed"] for row in found["rows"])
    assert FILED.with_suffix(".md").read_text(encoding="utf-8") == any_cpu.markdown(found)
