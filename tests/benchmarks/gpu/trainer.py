"""The trainer's passes over their matmul floor."""

from __future__ import annotations

import numpy as np
import torch

from renio_pipeline.objectives.projection import Head
from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.problem import Problem
from tests.benchmarks.gpu.profiles import profile
from tests.benchmarks.gpu.student import layers_floor, long_tailed, model


def trainer(bench: Bench) -> None:
    """Forward and backward of a step's samples with the exact loss, in the trainer's micro-batches."""
    from renio_pipeline.models import packed_attention
    from renio_pipeline.models.batching import micro_batches
    from renio_pipeline.models.student import TokenLogits, micro_batch_loss
    from renio_pipeline.objectives.jsd import Jsd
    from renio_pipeline.types import Hidden, TrainSample, Version

    rng, s = np.random.default_rng(1), bench.sizes
    samples, payload = [], {}
    for i, (p, n) in enumerate(long_tailed(bench)):
        states = bench.draw(n, s.teacher_hidden).cpu().view(torch.uint16).numpy()
        payload[i] = Hidden(values=states, version=Version(0, 0), teacher="")
        ids = rng.integers(0, s.vocabulary, p + n).astype(np.int32)
        zeros = np.zeros(n, np.float32)
        samples.append(
            TrainSample(
                sample_id=i,
                prompt_ids=ids[:p],
                response_ids=ids[p:],
                student_logprobs=zeros,
                teacher_logprobs=zeros,
                weight=1.0,
            )
        )
    lm = model(bench).train()
    student = TokenLogits(lm)
    head = Head(bench.draw(s.vocabulary, s.teacher_hidden, scale=2 * s.teacher_hidden**-0.5))
    tokens = sum(x.tokens for x in samples)
    responses = sum(len(x.response_ids) for x in samples)
    problem = Problem(bench, 4096 if bench.device == "cuda" else 48)
    few = 3
    layers = bench.cost(layers_floor(bench, tokens, 16384), few)["ms"]
    whole_loss = bench.cost(problem.floor(), few)["ms"] * responses / problem.tokens
    del problem
    bench.record("trainer", "tokens", {"all": tokens, "responses": responses})
    bench.record("trainer", "floors", {"layers forward ms": layers, "loss ms": whole_loss})

    counted: dict[bool, tuple[int, int]] = {}

    def step(packing: bool) -> None:
        computed = 0
        batches = micro_batches(samples, s.micro_batch_tokens, packing=packing)
        for batch in batches:
            micro = micro_batch_loss(
                student,
                batch,
                payload,
                objective=Jsd(beta=0.0, entry_clip=0.05),
                batch_size=len(samples),
                batch_tokens=responses,
                temperature=1.0,
                vocab_size=s.vocabulary,
                device=bench.device,
                teacher_head=lambda *_: head,
                packing=packing,
            )
            micro.loss.backward()
            computed += micro.computed_tokens
        lm.zero_grad()
        counted[packing] = computed, len(batches)

    def measure(name: str, packing: bool, floor: float) -> None:
        with bench.section(f"trainer {name}"):
            cost = bench.cost(lambda: step(packing), 2)
            computed, passes = counted[packing]
            bench.record("trainer", name, cost | {"useful": tokens / computed, "micro-batches": passes}, floor)

    for checkpointing, passes in ((True, 4), (False, 3)):
        floor, kind = passes * layers + whole_loss, "checkpointing" if checkpointing else "no checkpointing"
        if checkpointing:
            lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            lm.gradient_checkpointing_disable()
        lm.set_attn_implementation("sdpa")
        measure(f"a row each, {kind}", False, floor)
        if checkpointing:
            measure(f"packed, mask, {kind}", True, floor)
        packed_attention.use(lm)
        measure(f"packed, {lm.config._attn_implementation}, {kind}", True, floor)
    with bench.section("trainer profile"):
        profile(bench, "trainer", lambda: step(True))
