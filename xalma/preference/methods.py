"""The preference methods X-ALMA compares (Table 5), through TRL's own trainers, on equal terms.

Equal terms: the same rows in the same order (`schedule`), the same number of updates and of pairs
in each, one optimizer and learning-rate schedule (`COMMON`), dropout off, and behaviour cloning
(BC) as one switch: token-mean NLL of the chosen answers of the batch, weight `BC_WEIGHT`.

What is not equal, because the methods are not:
- DPO and KTO compare with a frozen reference: the model as it came in, i.e. *with* the adapter that
  stage 4 (SFT) trained. TRL's shortcut, the model with its adapter switched off, would be the base.
- KTO takes single answers: a batch holds the B chosen, then the B rejected of the same B pairs.
- ORPO's likelihood term runs over prompt and answer in TRL; all others over the answer only.
- SimPO works with length-averaged log-probabilities, hence its own beta.
- GRPO, not in Table 5, has the same prompts per update, but samples `num_generations` answers to each from the model as
  it is by then; the chosen one it knows through its reward alone. An update costs that many answers and their decoding.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import torch
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainerCallback
from trl import KTOConfig, SFTConfig

from xalma.data.literal import special_names_in, token_ids
from xalma.preference.arpo_trainer import ARPOConfig, CPOConfig
from xalma.preference.grpo import GRPO_OPTIONS, GatedGRPOConfig, GatedGRPOTrainer, grpo_rows
from xalma.preference.method_specs import COMMON, METHODS, Method
from xalma.preference.packed_pairs import pair_logps

from trl.experimental.orpo import ORPOConfig  # isort: skip  (arpo_trainer silences the warning)

_OWN_BOS = (CPOConfig, ARPOConfig, ORPOConfig)  # their trainers add BOS to the prompt themselves
WARMUP_SHARE = 0.01  # of all updates, at least one [repo:runs/cpo_ft.sh]


def schedule(n_rows: int, n_needed: int, seed: int) -> list[int]:
    """Returns `n_needed` row indices: whole seeded shuffles of all rows, one after another."""
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < n_needed:
        order += torch.randperm(n_rows, generator=generator).tolist()
    return order[:n_needed]


def train_preference(
    method: str,
    model: torch.nn.Module,
    tokenizer: Any,
    rows: Sequence[Mapping[str, str]],
    *,
    learning_rate: float,
    batch_size: int,
    max_steps: int,
    seed: int,
    output_dir: str | Path,
    beta: float | None = None,
    n_probe_rows: int = 16,
    disable_tqdm: bool = True,
    micro_batch: int | None = None,
    gradient_checkpointing: bool = False,
    **own_options: Any,
) -> tuple[torch.nn.Module, list[dict[str, Any]]]:
    """Trains `model` in place on prompt/chosen/rejected rows; returns it and its log.

    model: what has `requires_grad` is trained, e.g. the active adapter of a PEFT model; it comes
    back in evaluation mode with dropout and forward as they were. batch_size: pairs per update.
    micro_batch: pairs on the device at once, None for all; an update is then the mean over its parts.
    gradient_checkpointing: activations are computed again in the backward pass.
    beta: None is the method's own. own_options: `ARPOConfig` fields (eta, ...) of "arpo", `GRPO_OPTIONS` of "grpo".
    Log entries: {"kind": "train", "step", "loss", ...} as TRL names things (ARPO adds histograms
    "tau_counts" and "z_counts", GRPO "reward"), and about eight {"kind": "probe", "step", "chosen_avg_logp",
    "rejected_avg_logp", "margin", "accuracy"}, measured alike for all methods on the same first
    `n_probe_rows` rows. Writes no checkpoint.
    Raises: ValueError for an unknown method, no rows, nothing to train, options that do not apply,
    or a prompt that fills the maximal length.
    """
    _check(method, model, tokenizer, rows, batch_size, own_options)
    spec = METHODS[method]
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    order = schedule(len(rows), batch_size * max_steps, seed)
    micro = _micro_batch(batch_size, micro_batch)
    data = _dataset(spec, tokenizer, [rows[i] for i in order], micro)
    config = _config(
        spec,
        micro,
        max_steps,
        beta,
        own_options,
        gradient_accumulation_steps=batch_size // micro,
        gradient_checkpointing=gradient_checkpointing,
        output_dir=str(output_dir),
        learning_rate=learning_rate,
        seed=seed,
        disable_tqdm=disable_tqdm,
    )
    probe = _Probe(tokenizer, rows[:n_probe_rows], max_steps)
    with _restored(model), _progress_bars(not disable_tqdm):
        trainer = _trainer(spec, model, config, data, tokenizer, probe)
        trainer.train()
    if gradient_checkpointing:
        model.gradient_checkpointing_disable()
    model.eval()
    return model, _log(trainer, probe)


def _micro_batch(batch_size: int, micro_batch: int | None) -> int:
    micro = min(batch_size, micro_batch or batch_size)
    if batch_size % micro:
        raise ValueError(
            f"batch_size={batch_size} is no multiple of micro_batch={micro}: change one of the two"
        )
    return micro


def _trainer(
    spec: Method, model: torch.nn.Module, config: Any, data: Any, tokenizer: Any, probe: TrainerCallback
) -> Any:
    """The method's own trainer, with pairs in the given order and our probe; quiet where no bar is shown."""
    reference = {"ref_model": frozen_copy(model)} if spec.needs_reference else {}
    trainer = in_order(spec.trainer)(
        model=model,
        args=config,
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=[probe],
        **reference,
    )
    if config.disable_tqdm:  # transformers then prints every log instead
        trainer.remove_callback(PrinterCallback)
    return trainer


def _config(
    spec: Method,
    batch_size: int,
    max_steps: int,
    beta: float | None,
    own_options: Mapping[str, Any],
    **given: Any,
) -> Any:
    """The method's TRL config: `COMMON`, the method's own options, nothing saved or reported."""
    options = {**COMMON, **spec.options, **own_options}
    if spec.config in _OWN_BOS:
        options["remove_unused_columns"] = False  # their collator wants TRL's token columns
    if spec.beta is not None:
        options["beta"] = spec.beta if beta is None else beta
    if spec.config is GatedGRPOConfig:
        del options["max_length"]  # prompt and answer have limits of their own
    cuda = torch.cuda.is_available()
    rows = {KTOConfig: 2, GatedGRPOConfig: options.get("num_generations")}.get(spec.config, 1)  # of one pair
    return spec.config(
        per_device_train_batch_size=batch_size * rows,
        max_steps=max_steps,
        warmup_steps=max(1, math.ceil(WARMUP_SHARE * max_steps)),
        gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=cuda and torch.cuda.is_bf16_supported(),
        use_cpu=not cuda,
        save_strategy="no",
        report_to=[],
        logging_steps=1,
        **given,
        **options,
    )


def frozen_copy(model: torch.nn.Module) -> torch.nn.Module:
    """Returns a frozen copy of `model` as it is now, the reference of DPO and KTO.

    Parameters that are not trained (the base of a PEFT model) are shared, not copied. A PEFT model
    comes back as its inner model with the adapter layers in place and active.
    """
    shared = {id(p): p for p in model.parameters() if not p.requires_grad}
    reference = copy.deepcopy(model, memo=shared)
    reference = reference.get_base_model() if hasattr(reference, "peft_config") else reference
    return reference.requires_grad_(False).eval()


class _Probe(TrainerCallback):
    """Measures the log-probabilities of fixed rows before, eight times during, and after training."""

    def __init__(self, tokenizer: Any, rows: Sequence[Mapping[str, str]], max_steps: int):
        self.tokenizer, self.rows = tokenizer, rows
        self.every = max(1, max_steps // 8)
        self.last = max_steps
        self.log: list[dict[str, Any]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        self._measure(model, 0)

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step == self.last:
            self._measure(model, state.global_step)

    def _measure(self, model: Any, step: int) -> None:
        if not self.rows:
            return
        found = pair_logps(model, self.tokenizer, self.rows, max_length=COMMON["max_length"])
        chosen = found["chosen_logps"] / found["chosen_lengths"].clamp(min=1)
        rejected = found["rejected_logps"] / found["rejected_lengths"].clamp(min=1)
        self.log.append(
            {
                "kind": "probe",
                "step": step,
                "chosen_avg_logp": chosen.mean().item(),
                "rejected_avg_logp": rejected.mean().item(),
                "margin": (chosen - rejected).mean().item(),
                "accuracy": (chosen > rejected).float().mean().item(),
            }
        )


def _check(
    method: str, model: Any, tokenizer: Any, rows: Sequence, batch_size: int, options: Mapping
) -> None:
    if method not in METHODS:
        raise ValueError(f"unknown preference method {method!r}: use one of {', '.join(METHODS)}")
    known = {"arpo": options, "grpo": GRPO_OPTIONS}.get(method, {})
    if strange := sorted(options.keys() - known.keys()):
        raise ValueError(
            f"{strange} are no options of {method!r}: 'arpo' takes ARPOConfig's, 'grpo' {', '.join(GRPO_OPTIONS)}"
        )
    if not rows:
        raise ValueError("no preference pairs to train on: the report of build_pairs says why")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("nothing to train: load the adapter with is_trainable=True")
    if METHODS[method].config is KTOConfig and batch_size < 2:
        raise ValueError("KTO estimates its KL term inside a batch: batch_size must be at least 2")
    for number, row in enumerate(rows, 1):
        if found := special_names_in(tokenizer, row["prompt"], row["chosen"], row["rejected"]):
            raise ValueError(
                f"pair {number} has {found[0]} in its text, which TRL's trainers would read as a special token: "
                f"leave the pair out"
            )
    encoded = token_ids(tokenizer, [row["prompt"] for row in rows])
    longest = max(map(len, encoded))
    if longest + 2 > COMMON["max_length"]:
        raise ValueError(
            f"a prompt of {longest} tokens leaves no room for an answer within "
            f"{COMMON['max_length']}: filter long sources first"
        )


def _dataset(
    spec: Method, tokenizer: Any, rows: list[Mapping[str, str]], batch_size: int
) -> datasets.Dataset:
    """Rows in the columns the trainer wants; every trainer sees the same token ids."""
    prompts = [row["prompt"] for row in rows]
    if bos := tokenizer.bos_token:
        # The others leave BOS to the tokenizer, which may not add it.
        prompts = [prompt.removeprefix(bos) for prompt in prompts]
        adds_bos = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
        if spec.config not in _OWN_BOS and not adds_bos:
            prompts = [bos + prompt for prompt in prompts]
    chosen, rejected = ([row[side] for row in rows] for side in ("chosen", "rejected"))
    if spec.config is SFTConfig:
        columns: dict[str, list] = {"prompt": prompts, "completion": chosen}
    elif spec.config is GatedGRPOConfig:
        columns = grpo_rows(prompts, rows)
    elif spec.config is KTOConfig:
        # TRL would put all chosen before all rejected, so that no batch had both.
        columns = {"prompt": [], "completion": [], "label": []}
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            columns["prompt"] += prompts[part] * 2
            columns["completion"] += chosen[part] + rejected[part]
            columns["label"] += [True] * len(chosen[part]) + [False] * len(chosen[part])
    else:
        columns = {"prompt": prompts, "chosen": chosen, "rejected": rejected}
    return datasets.Dataset.from_dict(columns)


def in_order(trainer: type) -> type:
    """`trainer`, taking its rows as they come: `schedule` has already shuffled them."""
    if issubclass(trainer, GatedGRPOTrainer):  # its sampler repeats each row, once for each answer
        return trainer

    def sampler(self: Any, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    return type(trainer.__name__, (trainer,), {"_get_train_sampler": sampler})


@contextmanager
def _restored(model: torch.nn.Module) -> Iterator[None]:
    """Switches dropout off inside, and takes back what TRL and accelerate patch on the model."""
    dropouts = [(m, m.p) for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    patched = [(m, m.__dict__.get("forward")) for m in model.modules()]
    for module, _ in dropouts:
        module.p = 0.0
    try:
        yield
    finally:
        for module, p in dropouts:
            module.p = p
        for module, forward in patched:
            module.__dict__.pop("_original_forward", None)
            module.__dict__.pop("forward", None)
            if forward is not None:
                module.forward = forward


@contextmanager
def _progress_bars(shown: bool) -> Iterator[None]:
    before = datasets.is_progress_bar_enabled()
    (datasets.enable_progress_bars if shown else datasets.disable_progress_bars)()
    try:
        yield
    finally:
        (datasets.enable_progress_bars if before else datasets.disable_progress_bars)()


def _log(trainer: Any, probe: _Probe) -> list[dict[str, Any]]:
    counts = {entry["step"]: entry for entry in getattr(trainer, "histograms", [])}
    log = []
    for entry in trainer.state.log_history:
        if "loss" in entry:
            log.append({"kind": "train", **entry})
            if entry["step"] in counts:
                log[-1] |= {f"{name}_counts": counts[entry["step"]][name] for name in ("tau", "z")}
    return sorted(log + probe.log, key=lambda entry: entry["step"])
