"""The torch teacher's forward over its matmul floor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.profiles import profile
from tests.benchmarks.gpu.student import head_floor, layers_floor, long_tailed, model


def teacher(bench: Bench) -> None:
    from renio_pipeline.models import packed_attention
    from renio_pipeline.models import teacher as torch_teacher
    from renio_pipeline.models.batching import micro_batches
    from renio_pipeline.types import ScoreRequest, ScorerSpec, Version

    rng, s = np.random.default_rng(1), bench.sizes
    requests = [
        ScoreRequest(
            sample_id=i,
            prompt_ids=rng.integers(0, s.vocabulary, p).astype(np.int32),
            response_ids=rng.integers(0, s.vocabulary, n).astype(np.int32),
        )
        for i, (p, n) in enumerate(long_tailed(bench))
    ]
    tokens, responses = sum(r.tokens for r in requests), sum(len(r.response_ids) for r in requests)
    lm = model(bench).eval().requires_grad_(False)
    held = torch_teacher.Scorer.__new__(torch_teacher.Scorer)
    held._spec = ScorerSpec(model="", dtype="bfloat16", temperature=1.0, vocab_size=s.vocabulary, kind="hidden")
    held._device, held.model, held.version = bench.device, lm, Version(0, 0)
    few = 3
    floor = bench.cost(layers_floor(bench, tokens, 16384), few)["ms"]
    bench.record("teacher", "tokens", {"all": tokens, "responses": responses, "longest": max(r.tokens for r in requests)})
    bench.record("teacher", "layers' matmul floor", {"ms": floor})
    head = bench.cost(head_floor(bench, responses), few)["ms"]
    bench.record("teacher", "head's matmul floor", {"ms": head})
    for row, unmasked in ((4096, True), (16384, True), (32768, True), (2048, False), (4096, False)):
        lm.set_attn_implementation("sdpa")
        if unmasked:
            packed_attention.use(lm)
        name = f"rows of {row}, {lm.config._attn_implementation}"
        held._row_tokens = row
        with bench.section(f"teacher {name}"), torch.no_grad():
            rows = torch_teacher.pack(requests, row)

            def states() -> None:
                for packed in rows:  # noqa: B023
                    held._hidden(packed)

            bench.record("teacher", f"{name}, states", bench.cost(states, few), floor)
            if row == torch_teacher.UNMASKED_TOKENS["cuda"] or not unmasked:
                bench.record("teacher", f"{name}, score()", bench.cost(lambda: held.score(requests), few), floor + head)
    with bench.section("teacher profile"):
        packed_attention.use(lm)
        held._row_tokens = torch_teacher.UNMASKED_TOKENS["cuda"]
        profile(bench, "teacher", lambda: held.score(requests))
    lm.set_attn_implementation("sdpa")
    with bench.section("teacher padded"), torch.no_grad():
        groups = {"padded, sorted by length": micro_batches(requests, s.micro_batch_tokens, packing=False)}
        groups["padded, 8 as they come"] = [requests[i : i + 8] for i in range(0, len(requests), 8)]
        for name, batches in groups.items():
            padded = [collated(batch, bench.device) for batch in batches]
            useful = tokens / sum(ids.numel() for ids, _ in padded)

            def pass_() -> None:
                for ids, mask in padded:  # noqa: B023
                    lm.base_model(input_ids=ids, attention_mask=mask, use_cache=False)

            bench.record("teacher", f"{name}, states", bench.cost(pass_, few) | {"useful": useful}, floor)


def collated(batch: Any, device: str) -> tuple[Tensor, Tensor]:
    width = max(r.tokens for r in batch)
    ids, mask = torch.zeros(len(batch), width, dtype=torch.long), torch.zeros(len(batch), width, dtype=torch.long)
    for row, r in enumerate(batch):
        ids[row, : r.tokens] = torch.as_tensor(np.concatenate([r.prompt_ids, r.response_ids])).long()
        mask[row, : r.tokens] = 1
    return ids.to(device), mask.to(device)
