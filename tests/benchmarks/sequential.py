"""What a user has without this pipeline: one process, plain transformers, one thing after another.

A step writes a batch with ``generate`` (padded, KV cache, no gradients), reads it with a teacher in the same process, makes
both models' whole logits, takes the divergence of the whole vocabulary by autograd, weighs the samples of each micro-batch,
and updates by AdamW. Models, prompts, lengths, seeds, dtype and batch are those of the run's configuration; it may use every
core. ``python -m tests.benchmarks.sequential CONFIG OUT`` writes a line a step.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from renio_pipeline.config import RunConfig, load
from renio_pipeline.data.prompts import Cursor
from renio_pipeline.divergence import generalized_jsd
from renio_pipeline.loss import weighted_loss
from renio_pipeline.models.info import resolve
from renio_pipeline.objectives.jsd import Jsd
from renio_pipeline.preflight import prepare
from renio_pipeline.weighting import pivotal_weights
from renio_pipeline.weightings.renio import Renio

MICRO_BATCH_BYTES = 2**28  # of one side's logits: with both, their softmaxes and gradients about ten times that at the peak


@dataclass(frozen=True)
class Written:
    """A batch of responses as ``generate`` leaves it: prompts padded on the left, responses on the right."""

    tokens: Tensor  # [b, P + T]
    attention_mask: Tensor  # [b, P + T]
    response_mask: Tensor  # [b, T]
    logprobs: Tensor | None = field(default=None)

    @property
    def prompt_width(self) -> int:
        return self.tokens.shape[1] - self.response_mask.shape[1]


class Sequential:
    """The whole of it. ``step`` returns what it took."""

    def __init__(self, config: RunConfig, batch: int) -> None:
        """``batch``: sequences that ``generate`` writes at a time."""
        from transformers import AutoModelForCausalLM, get_scheduler

        self.config, self.batch = config, batch
        prepared = prepare(config)
        self.end = prepared.tokenizer.eos_token_id
        self.cursor = Cursor(prepared.prompt_ids, prepared.rows, config)
        t = config.trainer
        dtype = getattr(torch, t.dtype)
        self.student: Any = AutoModelForCausalLM.from_pretrained(resolve(config.student), dtype=dtype)
        self.teacher: Any = AutoModelForCausalLM.from_pretrained(resolve(config.teacher_model()), dtype=dtype).eval()
        parameters = self.student.parameters()
        self.optimizer = torch.optim.AdamW(parameters, lr=t.lr, betas=t.betas, weight_decay=t.weight_decay)
        self.schedule = get_scheduler(t.schedule, self.optimizer, t.warmup_steps, config.steps)
        torch.manual_seed(config.seed)

    def step(self) -> dict[str, float]:
        marks = [_now()]
        prompts = [p.student_ids for p in self.cursor.take(self.config.batch_size)]
        batches = [self._write(prompts[i : i + self.batch]) for i in range(0, len(prompts), self.batch)]
        marks.append(_now())
        tokens = sum(int(batch.response_mask.sum()) for batch in batches)
        loss = sum(self._learn(micro, tokens) for batch in batches for micro in self._micro_batches(batch))
        if self.config.trainer.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.config.trainer.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        marks.append(_now())
        (start, generated, trained) = marks
        return {
            "samples": len(prompts),
            "tokens": tokens,
            "loss": loss,
            "seconds": trained[0] - start[0],
            "cpu": trained[1] - start[1],
            "generate": generated[0] - start[0],
            "generate_cpu": generated[1] - start[1],
        }

    @torch.no_grad()
    def _write(self, prompts: list[Any]) -> Written:
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), self.end)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.as_tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        sampling = self.config.sampling
        tokens = self.student.eval().generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=self.config.max_response_tokens,
            do_sample=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            pad_token_id=self.end,
        )
        response = tokens[:, width:]
        ended = (response == self.end).cumsum(dim=1)
        own = (ended == 0) | ((ended == 1) & (response == self.end))
        return Written(tokens, torch.cat([mask, own.long()], dim=1), own)

    def _micro_batches(self, batch: Written) -> list[Written]:
        """In order, as many sequences at a time as the logits' memory allows, each cut to its own longest response."""
        row_bytes = 4 * batch.tokens.shape[1] * self.student.config.vocab_size
        size = max(1, MICRO_BATCH_BYTES // row_bytes)
        parts = zip(batch.tokens.split(size), batch.attention_mask.split(size), batch.response_mask.split(size), strict=True)
        cut = []
        for tokens, attention, response in parts:
            longest = int(response.sum(dim=1).max())
            total = batch.prompt_width + longest
            cut.append(Written(tokens[:, :total], attention[:, :total], response[:, :longest]))
        return cut

    def _learn(self, micro: Written, tokens: int) -> float:
        """Forward of both models, weights, loss, backward. ``tokens``: response tokens of the step."""
        objective, config = self.config.objective, self.config
        teacher_logits, student_logits = self._logits(self.teacher, micro, False), self._logits(self.student, micro, True)
        targets = micro.tokens[:, micro.prompt_width :, None]

        def sampled(logits: Tensor) -> Tensor:
            return torch.log_softmax(logits.detach() / config.temperature, dim=-1).gather(2, targets)[..., 0]

        own, mask = (sampled(student_logits), sampled(teacher_logits)), micro.response_mask
        weights = torch.ones(len(mask))
        if isinstance(w := config.weighting, Renio):
            weights = pivotal_weights(
                *own, mask, threshold=w.threshold, clip=w.clip, temperature=w.temperature, normalization=w.normalization
            ).weights
        per_token = generalized_jsd(
            student_logits,
            teacher_logits,
            beta=objective.beta if isinstance(objective, Jsd) else 0.0,
            temperature=config.temperature,
            entry_clip=objective.entry_clip,
            token_clip=objective.token_clip,
        )
        by = {"batch_tokens": tokens} if objective.normalization == "token" else {}
        loss = weighted_loss(per_token, mask, weights, batch_size=config.batch_size, **by)
        loss.backward()
        return float(loss.detach())

    def _logits(self, model: Any, micro: Written, gradients: bool) -> Tensor:
        """[b, T, V] that predict the responses."""
        with torch.set_grad_enabled(gradients):
            positions = (micro.attention_mask.cumsum(dim=1) - 1).clamp(min=0)
            out = model.train(gradients)(
                input_ids=micro.tokens, attention_mask=micro.attention_mask, position_ids=positions, use_cache=False
            )
            return out.logits[:, micro.prompt_width - 1 : -1].float()


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch", type=int, default=64, help="sequences that generate writes at a time")
    args = parser.parse_args()
    config = load(args.config)
    sequential = Sequential(config, args.batch)
    with args.out.open("w") as file:
        for step in range(config.steps):
            found = sequential.step() | {"peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
            file.write(json.dumps({"step": step + 1, **found}) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
