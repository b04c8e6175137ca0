"""GRPO with a reward of quality behind a language gate: what the newest translators are trained with.

The model samples a group of answers to each prompt, a metric scores them, and answers above the mean of their group
become likelier, those below it less likely (Shao et al. 2024, arXiv 2402.03300). TRL's GRPOTrainer does all of that;
here are the reward and the rows. It is not in X-ALMA's Table 5.

The reward is a product: the gate, 0 for an answer that is empty or in another language than was asked for, times the
quality. The default quality is chrF against the reference, which every pair brings. A metric without a reference makes
it a quality estimate: its checkpoint is a download, so it is named, as "cometkiwi=FOLDER". Whatever metric rewards
is no independent judge afterwards (`xalma.evaluation.interference`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sacrebleu import sentence_chrf
from trl import GRPOConfig, GRPOTrainer

from xalma.evaluation.comet import NEURAL_METRICS, scorer_of
from xalma.language_id import wrong_language
from xalma.prompts import extract_translation, source_in

REWARD = "chrf"
# Beside them TRL's defaults stand: temperature 1, no KL term (beta 0), advantages divided by the standard deviation of
# their group, the loss averaged over all tokens of a batch (DAPO's). 8 answers are TRL's default, 256 tokens X-ALMA's.
GRPO_OPTIONS: dict[str, Any] = {"reward": REWARD, "num_generations": 8, "max_completion_length": 256}

Quality = Callable[[Sequence[dict[str, str]]], Any]  # samples of src, mt, ref -> 0 to 1 each


def reward_metric(reward: str) -> str:
    """The metric of a reward, "cometkiwi" of "cometkiwi=FOLDER". Raises ValueError, naming all, for an unknown one."""
    metric = reward.partition("=")[0]
    if metric != REWARD and metric not in NEURAL_METRICS:
        known = ", ".join((REWARD, *NEURAL_METRICS))
        raise ValueError(f"unknown reward {reward!r}: use a metric or METRIC=CHECKPOINT, of {known}")
    return metric


class GatedReward:
    """A reward function of TRL's GRPOTrainer: quality of each answer, 0 to 1, and 0 where the language gate is shut.

    reward: "chrf" (sentence chrF against the chosen answer, over 100), or a neural metric of `xalma.evaluation` by name
    or as METRIC=CHECKPOINT; its scores are cut to 0 to 1, so that no answer is worse than one in the wrong language.
    An answer is read as the evaluation reads it, up to its first line end. A row without "tgt" has no gate but that for
    empty answers. Raises: ValueError for an unknown metric, NotAvailable (OSError) for a checkpoint that is not here.
    """

    def __init__(self, reward: str = REWARD):
        metric = reward_metric(reward)
        checkpoint = reward.partition("=")[2]
        self.quality: Quality = _chrf if metric == REWARD else scorer_of(metric, checkpoint)
        self.reads_source = metric != REWARD
        self.__name__ = metric  # TRL logs the reward under it

    def __call__(
        self,
        completions: Sequence[str],
        *,
        prompts: Sequence[str],
        chosen: Sequence[str],
        src: Sequence[str],
        tgt: Sequence[str],
        **_: Any,
    ) -> list[float | None]:
        """Rewards (n_answers,). chosen, src, tgt: of each answer's pair, from the columns of `grpo_rows`."""
        answers = list(map(extract_translation, completions))
        passing = [
            i for i, text in enumerate(answers) if text and not (tgt[i] and wrong_language(text, tgt[i]))
        ]
        samples = [
            {
                "src": source_in(prompts[i], src[i], tgt[i]) if self.reads_source else "",
                "mt": answers[i],
                "ref": chosen[i].strip(),
            }
            for i in passing
        ]
        rewards: list[float | None] = [0.0] * len(answers)
        for i, quality in zip(passing, self.quality(samples) if samples else (), strict=True):
            rewards[i] = min(max(float(quality), 0.0), 1.0)
        return rewards


def _chrf(samples: Sequence[dict[str, str]]) -> list[float]:
    return [sentence_chrf(sample["mt"], [sample["ref"]]).score / 100 for sample in samples]


@dataclass
class GatedGRPOConfig(GRPOConfig):
    """TRL's GRPO arguments and the reward of `GatedReward`. Prompts come in the order of the rows."""

    reward: str = field(default=REWARD, metadata={"help": "chrf, or a neural metric, as cometkiwi=FOLDER."})

    def __post_init__(self) -> None:
        self.shuffle_dataset = False
        super().__post_init__()


class GatedGRPOTrainer(GRPOTrainer):
    """TRL's GRPO trainer with `GatedReward`, for rows of `grpo_rows`."""

    def __init__(self, model: Any, args: GatedGRPOConfig, **kwargs: Any):
        super().__init__(model, GatedReward(args.reward), args, **kwargs)


def grpo_rows(prompts: list[str], rows: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """The columns GRPO reads: the pairs' prompts, and what the reward asks of each pair. No rejected answer is."""
    return {
        "prompt": prompts,
        **{key: [row.get(key, "") for row in rows] for key in ("chosen", "src", "tgt")},
    }
