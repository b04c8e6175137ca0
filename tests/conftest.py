"""What all tests share: no network, one thread (or OMP_NUM_THREADS), a profile of a second a stage, and its stages."""

from __future__ import annotations

import os

# Read when the libraries are imported, so set before any of them.
for _name, _value in {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
}.items():
    os.environ.setdefault(_name, _value)
os.environ.pop("XALMA_STATUS", None)  # a watcher of another run

import subprocess  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
THREADS = int(os.environ["OMP_NUM_THREADS"])  # of each process; the tests must pass with any number of them
torch.set_num_threads(THREADS)


@pytest.fixture(scope="session")
def committed_results():
    """Skips where results/ holds a run of yours: pages and tables are then of the committed run, not of that one."""
    changed = subprocess.run(
        ("git", "status", "--porcelain", "results"), cwd=ROOT, capture_output=True, text=True
    )
    if changed.stdout:
        pytest.skip("results/ was made anew and is not committed; `make readme` brings the pages up to date")


# Group 6 has five scripts. Budgets are whole batches. Smaller still, and some seeds give a model that says nothing at
# all: stage 5 then has no pair to learn from.
MICRO = {
    "groups": "6",
    "workers": 1,
    "threads": THREADS,
    "mixed_precision": "off",
    "base": "",
    "vocab_size": 600,
    "hidden_size": 64,
    "layers": 1,
    "heads": 2,
    "block_tokens": 64,
    "mixing": "uniform",
    "stage4_epochs": 1.0,
    "stage4_batch_size": 16,
    "lora_rank": 16,
    "lora_alpha": 32,
    "stage1_tokens": 40_960,
    "stage1_learning_rate": 3e-3,
    "stage2_tokens": 2048,
    "stage2_learning_rate": 3e-3,
    "stage3_tokens": 40_960,
    "stage3_learning_rate": 3e-3,
    "stage3_document_pairs": 1,
    "sft_pairs": 100,
    "dev_pairs": 2,
    "test_pairs": 2,
    "max_length": 300,
    "stage4_learning_rate": 3e-3,
    "stage5_pairs": 6,
    "stage5_batch_size": 8,
    "max_new_tokens": 40,
    "comparison_pairs": 2,
    "comparison_steps": 2,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(
        key=lambda item: "slow" not in item.keywords
    )  # first, so that no worker is left alone with one
    skips = {}
    if not os.environ.get("XALMA_DATA"):
        skips["data"] = "XALMA_DATA is not set: real text is not here"
    if not torch.cuda.is_available() and os.environ.get("XALMA_GPU_TESTS") != "cpu":
        skips["gpu"] = "torch sees no CUDA device"
    for item in items:
        for mark, reason in skips.items():
            if item.get_closest_marker(mark):  # keywords hold the names of folders too
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def micro_values() -> dict[str, object]:
    """The overrides that make tiny a matter of seconds, without folders."""
    return dict(MICRO)


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory):
    """The profile all tests that need a model share; its folders hold what `ladder` and `finished` made."""
    from xalma.profiles import load_profile

    folder = tmp_path_factory.mktemp("micro")
    return load_profile("tiny", **MICRO, run_dir=str(folder / "runs"), results_dir=str(folder / "results"))


@pytest.fixture(scope="session")
def ladder(micro) -> dict[int, Path]:
    """Folders of stages 0 to 2 of group 6, made once a session. Read only: copy before changing one."""
    from xalma.training import stages

    folders = {0: stages.stage0_backbone(micro), 1: stages.stage1_monolingual_base(micro)}
    folders[2] = stages.stage2_monolingual_modules(micro, 6)
    return folders


@pytest.fixture(scope="session")
def finished(micro, ladder) -> dict[int, Path]:
    """Folders of all stages of group 6."""
    from xalma.training.ladder import MODULE_STAGES

    return ladder | {number: MODULE_STAGES[number](micro, 6) for number in (3, 4, 5)}


@pytest.fixture
def handed_over(monkeypatch) -> list[dict[str, torch.Tensor]]:
    """The gradients by name, before they are clipped, that each update of the trainer hands to its optimizer."""
    from xalma.training.trainer import TrainingRun

    found, apply = [], TrainingRun.apply

    def filed(run: TrainingRun) -> torch.Tensor:
        found.append({name: x.grad.clone() for x, name in run.names.items()})
        return apply(run)

    monkeypatch.setattr(TrainingRun, "apply", filed)
    return found


@pytest.fixture
def swahili():
    """A 51st language in a group of its own, gone after the test."""
    from xalma import languages

    tables = languages.ADDED, languages.GROUPS, languages.GROUP_NAMES
    before = [dict(table) for table in tables]
    yield languages.add_language(
        "sw|Swahili|Latn|Niger-Congo|Bantu|9|other|inferred|swh_Latn|sw|swa", "Bantu"
    )
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)


@pytest.fixture
def tokenizer(ladder):
    """The micro tokenizer, fresh for each test."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ladder[0])


@pytest.fixture
def base(ladder):
    """The micro base after stage 1, in evaluation mode, fresh for each test."""
    from xalma.models.backbone import load_base

    return load_base(ladder[1])[0].eval()
