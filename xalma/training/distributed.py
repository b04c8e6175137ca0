"""One stage on many devices: torch.distributed as `accelerate launch` and torchrun start it, FSDP2 or DDP by stage.

Full weights are sharded (FSDP2: weights, gradients and optimizer state), a module on its frozen base is replicated
(DDP: only the module's gradients travel). The first process alone writes results:
`train` gives the others None, and they leave the stage. Stage 0, which trains nothing, runs in one process.
"""

from __future__ import annotations

import copy
import gc
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from xalma.profiles import Profile
from xalma.runtime import device


def start() -> None:
    """Join the processes that a launcher started, if one did (RANK, WORLD_SIZE, … in the environment)."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if device() == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        # the others wait at the end while the first evaluates and writes
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device() == "cuda" else "gloo", timeout=timedelta(hours=2)
        )


def stop() -> None:
    """Leave the processes joined by `start`."""
    if dist.is_initialized():
        gc.collect()  # DDP that outlives its group may wait for ever: its end holds the lock that gloo's thread needs
        dist.destroy_process_group()


def world_size() -> int:
    """Number of processes that train together, 1 without a launcher."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


def together(function: Callable[[], Any]) -> list[Any]:
    """`function`'s results in all processes, by rank. Raises OSError in all of them where one could not write."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        mine = function(), None
    except CheckpointException as error:  # its text is a traceback of every process that failed
        cause = next(iter(error.failures.values()))[0]
        mine = None, f"{type(cause).__name__}: {cause}"
    except (OSError, RuntimeError) as error:
        mine = None, f"{type(error).__name__}: {error}"
    results = [mine] * world_size()
    if world_size() > 1:
        dist.all_gather_object(results, mine)
    for _, error in results:
        if error:
            raise OSError(" ".join(error.split()))
    return [result for result, _ in results]


def mean(value: torch.Tensor) -> torch.Tensor:
    """Mean of a scalar tensor over all processes."""
    if world_size() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / world_size()


def sharded(model: torch.nn.Module, p: Profile) -> bool:
    """Whether `model` is trained in shards: FSDP2 for full weights, DDP for modules, unless the profile says which."""
    everything = all(parameter.requires_grad for parameter in model.parameters())
    return world_size() > 1 and (p.sharding == "full" or (p.sharding == "auto" and everything))


def distribute(
    worker: torch.nn.Module, layers: Callable[[torch.nn.Module], Any], shard: bool, bf16: bool = False
):
    """(worker ready to train on this process's device, what to save and optimise of it).

    worker: has the model as `.model`. layers: its decoder layers, the units of FSDP2. A sharded model in the first
    process is a copy: `collect` brings the trained weights back.
    """
    if not shard:
        worker.to(device())
        ready = DistributedDataParallel(worker, gradient_as_bucket_view=True) if world_size() > 1 else worker
        return ready, worker.model
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    worker = copy.deepcopy(worker.cpu()) if rank() == 0 else worker.cpu()  # FSDP2 moves it a layer at a time
    options = {
        "mesh": init_device_mesh(device(), (world_size(),)),
        "mp_policy": MixedPrecisionPolicy(torch.bfloat16, torch.float32) if bf16 else MixedPrecisionPolicy(),
    }
    for layer in layers(worker.model):
        fully_shard(layer, **options)
    fully_shard(worker, **options)
    return worker, worker.model


def accumulating(worker: torch.nn.Module, last: bool) -> AbstractContextManager:
    """Inside, gradients are summed over the processes only for the last micro-batch of an update."""
    if hasattr(worker, "set_requires_gradient_sync"):
        worker.set_requires_gradient_sync(last)
    elif hasattr(worker, "no_sync") and not last:
        return worker.no_sync()
    return nullcontext()


def collect(trained: torch.nn.Module, model: torch.nn.Module) -> None:
    """Bring the trained weights of a sharded model into the first process's own `model`; all processes take part."""
    for ours, theirs in zip(model.parameters(), trained.parameters(), strict=True):
        if theirs.requires_grad and hasattr(theirs, "full_tensor"):
            full = theirs.detach().full_tensor()
            if rank() == 0:
                ours.data.copy_(full)
