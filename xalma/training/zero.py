"""DeepSpeed's ZeRO-3 in place of FSDP2, where `sharding=deepspeed` or the launcher's configuration asks for it.

The loop, its optimizer, schedule and checkpoints stay train's: DeepSpeed keeps the shards, reduces and clips the
gradients. A checkpoint holds each process's part of a weight as a shard of the flat weight, tensors only as ever, so
that any number of processes can go on with DeepSpeed, and no other sharding can. Weights are gathered in float32,
twice FSDP2's traffic. Run here on CPU processes; on a GPU: not run.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from transformers import PreTrainedModel

from xalma.profiles import Profile
from xalma.runtime import device
from xalma.training.distributed import Follower, rank, world_size
from xalma.training.objectives import Objective
from xalma.training.trainer import Run, Worker


class ZeroRun(Run):
    """A training whose weights, gradients and moments DeepSpeed shards.

    Raises ImportError, in one sentence, without the package.
    """

    def __init__(self, model: PreTrainedModel, p: Profile, stage: str, steps: int, objective: Objective) -> None:
        deepspeed = _deepspeed()
        super().__init__(model, p, stage, steps, objective)
        self.n_flops = super().flops()  # a partitioned weight has no elements
        config = {
            "train_micro_batch_size_per_gpu": 1,  # not used: the loop has its own batches, and their mean
            "gradient_clipping": p.clip_norm,
            "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},  # every weight in shards
            "zero_allow_untested_optimizer": True,  # torch's AdamW on flat shards: element by element it is the same
            "steps_per_print": 2**62,
        }
        deepspeed.zero.Init(module=self.worker, config_dict_or_path=config)  # a weight at a time to the device
        self.worker, *_ = deepspeed.initialize(model=self.worker, optimizer=self.optimizer, config=config)
        self.mesh = init_device_mesh(device(), (world_size(),))

    def spread(self, worker: Worker) -> tuple[Worker, torch.nn.Module]:
        """The worker as it is, a copy in the first process, whose own model gets the trained weights at the end."""
        worker = copy.deepcopy(worker) if rank() == 0 else worker
        return worker, worker.model

    def apply(self) -> torch.Tensor:
        self.worker.step()  # reduced, clipped, stepped and cleared
        return torch.as_tensor(self.worker.get_global_grad_norm())

    def tensors(self) -> dict[str, torch.Tensor]:
        """As `Run.tensors`, each a flat tensor of which a process has its shard; AdamW's step is the run's."""
        from deepspeed.utils import safe_get_local_fp32_param, safe_get_local_optimizer_state

        for flat, slots in self._slots():
            if not slots:  # before its first step AdamW has none
                slots |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(flat)}
                slots |= {"exp_avg_sq": torch.zeros_like(flat)}
        found = {}
        for x, name in self.names.items():
            found[f"zero.weight.{name}"] = self._shard(x, safe_get_local_fp32_param(x))
            for key in ("exp_avg", "exp_avg_sq"):
                found[f"zero.{key}.{name}"] = self._shard(x, safe_get_local_optimizer_state(x, key))
        return found

    def go_on(self, facts: dict[str, Any]) -> None:
        super().go_on(facts)
        from deepspeed.utils import safe_get_local_fp32_param

        for _, slots in self._slots():
            slots["step"].fill_(self.step)
        for x in self.names:  # what is computed with is a copy of what AdamW has
            x.ds_tensor.data.copy_(safe_get_local_fp32_param(x))

    def flops(self) -> float:
        return self.n_flops

    def finish(self, model: PreTrainedModel) -> None:
        """Weights of all processes into the first one's `model`; raises `Follower` in the others."""
        for ours, theirs in zip(model.parameters(), self.trained.parameters(), strict=True):
            if theirs.requires_grad:
                with _deepspeed().zero.GatheredParameters(theirs):
                    if rank() == 0:
                        ours.data.copy_(theirs.data)
        if rank():
            raise Follower

    def _slots(self) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        flats = self.worker.optimizer.fp32_partitioned_groups_flat
        return [(flat, self.optimizer.state[flat]) for flat in flats]

    def _shard(self, x: torch.nn.Parameter, mine: torch.Tensor) -> DTensor:
        """This process's part `mine` of the flat `x`, the padding of the last part cut off: a view."""
        n = x.ds_numel
        mine = mine[: max(0, n - rank() * mine.numel())]
        return DTensor.from_local(mine, self.mesh, [Shard(0)], run_check=False, shape=(n,), stride=(1,))


def _deepspeed() -> Any:
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    try:
        import deepspeed
    except ImportError as error:
        raise ImportError(f"sharding=deepspeed needs the package: pip install 'xalma[deepspeed]' ({error})") from error
    return deepspeed
