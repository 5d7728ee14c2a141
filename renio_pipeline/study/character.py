"""Measures a model of the study: how well it answers by itself, and how it continues after a slip that it did not make."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from renio_pipeline.config import RunConfig
from renio_pipeline.data.prompts import Encoder
from renio_pipeline.grading.grader import Grader, Judged
from renio_pipeline.in_process import end_ids
from renio_pipeline.models import info
from renio_pipeline.preflight import Prepared
from renio_pipeline.probe.continuations import Begun, whole
from renio_pipeline.stages.protocols import Generators
from renio_pipeline.study.lessons import slipped_step
from renio_pipeline.study.marks import REPAIR
from renio_pipeline.study.results import Record
from renio_pipeline.tasks.arithmetic import kind_of_error
from renio_pipeline.tasks.phrasing import Phrasing
from renio_pipeline.types import Prompt, Row

WHOLE_RESPONSE = 64  # the longest response in tokens, whatever prefix is trained on
KINDS = ("correct", "slipped", "guessed", "unfinished")


@dataclass(frozen=True, kw_only=True)
class Continuing:
    """A model that goes on from beginnings of responses to the held-out problems."""

    writer: Generators
    rows: Sequence[Row]
    asked: Sequence[np.ndarray]  # of each row: the prompt's ids
    prepared: Prepared
    grader: Grader
    parameters: int

    @classmethod
    def of(cls, config: RunConfig, prepared: Prepared, grader: Grader, model: str) -> Continuing:
        """``model`` as the student, or as the teacher, of ``config``. It sees the solution where that one's teacher does."""
        import torch
        from transformers import AutoModelForCausalLM

        from renio_pipeline.in_process.generators import InProcessGenerators

        lm = AutoModelForCausalLM.from_pretrained(info.resolve(model), dtype=torch.float32)
        phrasing = Phrasing(prepared.task, config.prompts, config.template)
        asked = Encoder(prepared.tokenizer, phrasing).encode(
            prepared.held_out, "teacher" if config.privileged else "evaluation"
        )
        return cls(
            writer=InProcessGenerators(lm, config, prepared.vocab_size, end_ids(lm, prepared)).longer(WHOLE_RESPONSE),
            rows=prepared.held_out,
            asked=asked,
            prepared=prepared,
            grader=grader,
            parameters=sum(p.numel() for p in lm.parameters()),
        )

    async def after(self, beginnings: Sequence[str]) -> list[Judged]:
        """The continuations of one beginning per row, judged as whole responses."""
        begun = [np.asarray(self.prepared.tokenizer.encode(text), np.int32) for text in beginnings]
        prompts = [
            Prompt(sample_id=-1 - i, row=row, student_ids=np.concatenate([ids, start]), teacher_ids=ids)
            for i, (row, ids, start) in enumerate(zip(self.rows, self.asked, begun, strict=True))
        ]
        judged = []
        async for written in self.writer.generate(prompts, 1.0):
            start = Begun(prompt=written.prompt, ids=begun[-1 - written.sample_id])
            judged.append(await self.grader.judge(whole(start, written.token_ids, written.stop_reason)))
        return judged


async def measure_model(config: RunConfig, prepared: Prepared, grader: Grader) -> Record:
    """Measure the student of ``config``. With ``method.type: opsd`` it is measured as a teacher, that is, with the solution."""
    began = time.process_time()
    model = Continuing.of(config, prepared, grader, config.student)
    slips = [slipped_step(row.problem, random.Random(i)) + ";" for i, row in enumerate(prepared.held_out)]
    return {
        "parameters": model.parameters,
        "alone": shares(await model.after([""] * len(slips)), terms=terms_of(config)),
        "after_slip": shares(await model.after(slips), terms=terms_of(config)),
        "core_seconds": round(time.process_time() - began, 2),
    }


def shares(judged: Sequence[Judged], *, terms: int) -> dict[str, float]:
    """The shares of correct responses, of each kind of error and of marked responses, and the mean length in tokens."""
    kinds = Counter(kind_of(j, terms=terms) for j in judged)
    return {
        "problems": len(judged),
        **{kind: kinds[kind] / len(judged) for kind in KINDS},
        "marked": float(np.mean([REPAIR in j.text for j in judged])),
        "tokens": float(np.mean([len(j.rollout.token_ids) for j in judged])),
    }


def kind_of(judged: Judged, *, terms: int) -> str:
    """The kind of a response by its form, one of ``KINDS``."""
    if judged.verdict != "incorrect":
        return judged.verdict or "unfinished"
    return kind_of_error(judged.text, terms)


def terms_of(config: RunConfig) -> int:
    """The number of terms in a problem."""
    return int(config.task_options.get("terms", 4))
