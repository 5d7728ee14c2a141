"""A DeepSpeed engine of one rank, as a trainer rank builds it: two steps, and their memory against the plan."""

from __future__ import annotations

import os
import time
from typing import Any

from tests.gpu import models
from tests.gpu.check import Figure, Figures
from tests.gpu.memory import gib, peak
from tests.gpu.runner import ROOT
from tests.gpu.settings import Settings

PLANNED = 1.05  # of the planned memory: a plan that says "fits" must hold
K = 64  # of the teacher's top tokens


def stage_2(settings: Settings) -> Figures:
    return _check(settings, 2)


def stage_3(settings: Settings) -> Figures:
    return _check(settings, 3)


def _check(settings: Settings, stage: int) -> Figures:
    models.environment(settings)
    from actors.trainer.deepspeed_engine import build, optimizer_step
    from actors.trainer.messages import RankSpec
    from renio_pipeline.config import load

    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _port()}
    with models.saved(settings, settings.main) as folder:
        config = load(ROOT / "configs/demo.yaml", [
            f"student={folder}", f"temperature={settings.temperature}", f"objective={{type: top_k_forward_kl, k: {K}}}",
            f"trainer.dtype={settings.dtype}", f"trainer.zero_stage={stage}", f"trainer.lr={settings.lr}",
            f"trainer.micro_batch_tokens={settings.micro_batch_tokens}", "trainer.gradient_checkpointing=true",
        ])  # fmt: skip
        with peak(settings) as used:
            engine: Any = build(
                RankSpec(model=folder, trainer=config.trainer, steps=10, seed=0, on_gpu=settings.on_gpu), world_size=1
            )
            losses, norms = [], []
            started = time.perf_counter()
            for _ in range(2):  # the optimizer's moments are there from the first one's end on
                losses.append(_forward_backward(settings, engine, config))
                norms.append(optimizer_step(engine))
            seconds = time.perf_counter() - started
    yield Figure("loss of the first step", losses[0], least=0.0)
    yield Figure("loss of the second step over it", losses[1] / losses[0], most=0.999)
    yield Figure("gradient norm", norms[0], least=1e-9)
    yield Figure("time of two steps", seconds, "s")
    planned = _planned(settings, config)
    yield Figure("planned memory", gib(planned), "GiB")
    if used.total is not None:
        yield Figure("peak memory", gib(used.total), "GiB", most=PLANNED * gib(planned))


def _port() -> str:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def _forward_backward(settings: Settings, engine: Any, config: Any) -> float:
    """A step's loss over micro-batches of the configured size, as a trainer rank runs them."""
    from renio_pipeline.models.batching import micro_batches
    from renio_pipeline.models.student import micro_batch_loss

    samples, payload = _samples(settings)
    batches, total = micro_batches(samples, settings.micro_batch_tokens, packing=True), 0.0
    for i, batch in enumerate(batches):
        engine.set_gradient_accumulation_boundary(i == len(batches) - 1)
        micro = micro_batch_loss(
            engine,
            batch,
            payload,
            objective=config.objective,
            batch_size=len(samples),
            batch_tokens=sum(len(s.response_ids) for s in samples),
            temperature=settings.temperature,
            vocab_size=settings.vocabulary,
            device=engine.device,
            packing=True,
        )
        engine.backward(micro.loss, scale_wrt_gas=False)
        total += micro.loss.item()
    return total


def _samples(settings: Settings) -> tuple[list[Any], dict[int, Any]]:
    """As many tokens as fill two micro-batches, and a made-up teacher's top K of each."""
    import numpy as np

    from renio_pipeline.types import TopK, TrainSample

    length = settings.prompt_tokens + settings.response_tokens
    rng, samples, payload = np.random.default_rng(0), [], {}
    for i in range(2 * settings.micro_batch_tokens // length):
        tokens, T = models.ids(settings, length, i), settings.response_tokens
        top = (
            np.argsort(rng.random((T, settings.vocabulary)), axis=1)[:, :K]
            if settings.vocabulary < 10**4
            else (
                rng.integers(0, settings.vocabulary // K, (T, K)) * K + np.arange(K)  # distinct without a sort of all
            )
        )
        response = tokens[settings.prompt_tokens :]
        logprobs = np.sort(rng.normal(-6, 1, (T, K + 1)).astype(np.float32), axis=1)[:, ::-1]
        payload[i] = TopK(
            token_ids=np.concatenate([response[:, None], top], axis=1).astype(np.int32), logprobs=np.ascontiguousarray(logprobs)
        )
        zeros = np.zeros(T, np.float32)
        samples.append(
            TrainSample(
                sample_id=i,
                prompt_ids=tokens[: settings.prompt_tokens],
                response_ids=response,
                student_logprobs=zeros,
                teacher_logprobs=zeros,
                weight=1.0,
            )
        )
    return samples, payload


def _planned(settings: Settings, config: Any) -> float:
    """Bytes that `renio plan` counts for this rank."""
    from renio_pipeline.planning.rank_memory import trainer_rank
    from renio_pipeline.planning.sizes import sizes_of

    sizes = sizes_of("student", models.config_of(settings, settings.main).to_dict())
    longest = settings.prompt_tokens + settings.response_tokens
    return trainer_rank(config, sizes, [], None, 1, longest, settings.response_tokens / longest).total
