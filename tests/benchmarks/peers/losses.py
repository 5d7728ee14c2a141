"""One batch, its loss and its gradient: TRL's number beside this project's, and beside that of the sequential baseline.

The student writes the responses once. TRL's trainer gets them padded, with its own ``compute_loss``; this project's student
gets them packed, with the teacher's hidden states as its own teachers send them; the baseline takes whole logits and autograd.
``.venv-peers/bin/python -m tests.benchmarks.peers.losses`` writes JSON and a Markdown table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renio_pipeline.config import RunConfig, load
from renio_pipeline.in_process.teachers import InProcessTeachers
from renio_pipeline.models import packed_attention
from renio_pipeline.models.info import resolve
from renio_pipeline.models.student import TokenLogits, micro_batch_loss
from renio_pipeline.objectives.fetched import by_sample
from renio_pipeline.preflight import prepare
from renio_pipeline.probe.responses import train_sample
from renio_pipeline.types import Prompt, Rollout, TrainSample, Version
from tests.benchmarks.peers import table, trl_trainer
from tests.benchmarks.peers.turns import overrides
from tests.benchmarks.sequential import Sequential, Written
from tests.benchmarks.shapes import ROOT, config_of

BETAS = (0.0, 0.5, 1.0)
SAMPLES = {"tiny": 64, "tail": 16, "135m": 4}


@dataclass(frozen=True)
class Found:
    loss: float
    gradient: Tensor  # [parameters]


@dataclass(frozen=True)
class Batch:
    prompts: Sequence[Prompt]
    written: Written

    def responses(self) -> list[np.ndarray]:
        pairs = zip(self.written.tokens[:, self.written.prompt_width :], self.written.response_mask, strict=True)
        return [tokens[mask].numpy().astype(np.int32) for tokens, mask in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "runs/bench-peers")
    parser.add_argument("--shape", choices=SAMPLES, action="append")
    args = parser.parse_args()
    rows = [row for shape in args.shape or ("tiny", "tail") for row in compare(shape, args.out / "models" / shape)]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "losses.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(table.losses(rows))


def compare(shape: str, folder: Path) -> list[dict[str, Any]]:
    """A row for each of BETAS. Differences of gradients are norms, over the norm of this project's."""
    more = overrides(shape, "this") | {"batch_size": SAMPLES[shape]}
    config = load(config_of(shape, folder, 1, **more)[0])
    first = Sequential(config, SAMPLES[shape])
    prompts = first.cursor.take(config.batch_size)
    batch = Batch(prompts, first._write([p.student_ids for p in prompts]))
    rows = []
    for beta in BETAS:
        as_trl, as_paper = (_config(config, beta, normalization) for normalization in ("token", "sample"))
        own, theirs, naive, papers = ours(as_trl, batch), trls(as_trl, batch), naives(as_trl, batch), ours(as_paper, batch)
        rows.append(
            {
                "shape": shape,
                "beta": beta,
                "tokens": int(batch.written.response_mask.sum()),
                "this": own.loss,
                "trl": theirs.loss,
                "baseline": naive.loss,
                "loss off": abs(theirs.loss - own.loss) / abs(own.loss),
                "gradient off": _off(own, theirs),
                "baseline's gradient off": _off(own, naive),
                "mean over samples": papers.loss,
                "cosine": float(torch.nn.functional.cosine_similarity(own.gradient, papers.gradient, dim=0)),
            }
        )
    return rows


def ours(config: RunConfig, batch: Batch) -> Found:
    """By the pipeline's own pieces: the teacher's states, packed rows, the objective's head function."""
    from transformers import AutoModelForCausalLM

    prepared = prepare(config)
    teachers = InProcessTeachers(config, prepared)
    samples = _scored(teachers, batch)
    lm = AutoModelForCausalLM.from_pretrained(resolve(config.student), dtype=torch.float32)
    model = TokenLogits(lm.train())
    packed_attention.use(lm)
    micro = micro_batch_loss(
        model,
        samples,
        by_sample(samples, lambda table: table),
        objective=config.objective,
        batch_size=len(samples),
        batch_tokens=sum(len(s.response_ids) for s in samples),
        temperature=config.temperature,
        vocab_size=prepared.vocab_size,
        teacher_head=teachers.head,
    )
    micro.loss.backward()
    return _found(micro.loss.item(), lm)


def trls(config: RunConfig, batch: Batch) -> Found:
    """By the trainer's ``compute_loss``, on the inputs that its own generation would have given it."""
    w = batch.written
    with tempfile.TemporaryDirectory() as out:
        trainer = trl_trainer.make(config, Path(out), "shipped")
    own = w.response_mask.long()
    inputs = {
        "prompt_ids": w.tokens[:, : w.prompt_width],
        "prompt_mask": w.attention_mask[:, : w.prompt_width],
        "completion_ids": w.tokens[:, w.prompt_width :],
        "completion_mask": own,
        "num_items_in_batch": own.sum().float(),
    }
    loss = trainer.compute_loss(trainer.model.train(), inputs)
    loss.backward()
    return _found(loss.item(), trainer.model)


def naives(config: RunConfig, batch: Batch) -> Found:
    baseline = Sequential(config, len(batch.prompts))
    tokens = int(batch.written.response_mask.sum())
    loss = sum(baseline._learn(micro, tokens) for micro in baseline._micro_batches(batch.written))
    return _found(loss, baseline.student)


def _config(config: RunConfig, beta: float, normalization: str) -> RunConfig:
    objective = config.objective.model_copy(update={"beta": beta, "normalization": normalization})
    return config.model_copy(update={"objective": objective})


def _scored(teachers: InProcessTeachers, batch: Batch) -> list[TrainSample]:
    async def rollouts() -> AsyncIterator[Rollout]:
        for prompt, tokens in zip(batch.prompts, batch.responses(), strict=True):
            nothing = np.zeros(len(tokens), np.float32)  # of the student's: no weight and no ratio uses it here
            yield Rollout(prompt=prompt, token_ids=tokens, logprobs=nothing, stop_reason="stop", version=Version(0, 0))

    return [train_sample(scored) for scored in asyncio.run(teachers.score(rollouts(), 1))]


def _found(loss: float, model: Any) -> Found:
    return Found(loss, torch.cat([p.grad.flatten() for _, p in sorted(model.named_parameters()) if p.grad is not None]))


def _off(own: Found, other: Found) -> float:
    return float((other.gradient - own.gradient).norm() / own.gradient.norm())


if __name__ == "__main__":
    main()
