"""A generator and a trainer rank that take turns on one GPU: what each frees for the other, and that it comes back the same."""

from __future__ import annotations

import time

import numpy as np

from tests.gpu import models
from tests.gpu.check import Figure, Figures
from tests.gpu.memory import gib
from tests.gpu.pair import Pair, pair
from tests.gpu.settings import Settings

FREED = 0.7  # of the engine's share: its weights and its cache; CUDA's context and captured graphs stay
OPTIMIZER_BYTES = 12  # of a parameter: fp32 weights and two moments


def sleep(settings: Settings) -> Figures:
    with (
        models.saved(settings, settings.main) as folder,
        pair(settings, folder, "ipc", "trainer.offload=optimizer") as both,
    ):
        both.train()  # the moments are there from here on
        both.publish()
        yield from _generator_sleeps(settings, both)
        yield from _rank_gives_way(both)
        both.train()
        both.publish()
        yield Figure("gap after an update that follows", both.gap(), "nats", most=settings.gap)


def _generator_sleeps(settings: Settings, both: Pair) -> Figures:
    import torch

    before, free = both.generator_logprobs(), _free()
    started = time.perf_counter()
    both.ask(both.generator, "sleep")
    yield Figure("time to fall asleep", time.perf_counter() - started, "s")
    total = torch.cuda.get_device_properties(0).total_memory
    share = settings.gpu_memory_utilization * total
    yield Figure("freed by the generator", gib(_free() - free), "GiB", least=FREED * gib(share))
    started = time.perf_counter()
    both.ask(both.generator, "wake_up")
    yield Figure("time to wake up", time.perf_counter() - started, "s")
    moved = float(np.abs(both.generator_logprobs() - before).max())
    yield Figure("log-probabilities after waking up, largest gap", moved, "nats", most=settings.gap)


def _rank_gives_way(both: Pair) -> Figures:
    parameters = sum(int(np.prod(shape)) for shape in _shapes(both))
    before, free = both.rank_logprobs(), _free()
    both.ask(both.rank, "offload")
    yield Figure("freed by the trainer", gib(_free() - free), "GiB", least=0.9 * gib(OPTIMIZER_BYTES * parameters))
    both.ask(both.rank, "onload")
    moved = float(np.abs(both.rank_logprobs() - before).max())
    yield Figure("trainer's log-probabilities after that, largest gap", moved, "nats", most=1e-6)


def _shapes(both: Pair) -> list[tuple[int, ...]]:
    """Of the model's parameters, counted without their memory."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(models.config_of(both.settings, both.settings.main))
    return [tuple(p.shape) for p in lm.parameters()]


def _free() -> int:
    """Bytes of the GPU that no process holds."""
    import torch

    return int(torch.cuda.mem_get_info()[0])
