"""Made-up recordings, without models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from renio_pipeline.recordings.keys import prompt_key, score_key
from renio_pipeline.recordings.manifest import Manifest, RecordedTeacher
from renio_pipeline.recordings.parts import Scored
from renio_pipeline.recordings.recorder import recorder
from renio_pipeline.types import Prompt, Row, TopK

V, K = 50, 3


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "student": "S", "student_version": "s1", "teachers": {"": RecordedTeacher(model="T", version="t1")},
        "tokenizer": "k1", "vocab_size": V, "temperature": 1.0, "kind": "top_k", "top_k": K, "max_response_tokens": 16,
        "seed": 0, "sampling": {"temperature": 1.0},
    }  # fmt: skip
    return Manifest(**values | changes)


def prompt(sample_id: int, row: int | None = None) -> Prompt:
    place = sample_id if row is None else row
    ids = np.array([1, 2, 3 + place], np.int32)
    return Prompt(sample_id=sample_id, row=Row(id=f"row{place}", problem="?"), student_ids=ids, teacher_ids=ids)


def scored(asked: Prompt, length: int | None = None, teacher: str = "t1", attempt: int = 0) -> Scored:
    rng = np.random.default_rng([asked.sample_id, attempt])
    tokens = int(rng.integers(0, 9)) if length is None else length
    ids = rng.integers(0, V, tokens).astype(np.int32)
    top = rng.integers(0, V, (tokens, K + 1)).astype(np.int32)
    top[:, 0] = ids
    logprobs = -rng.random((tokens, K + 1)).astype(np.float32)
    key = prompt_key(asked)
    return Scored(
        sample_id=asked.sample_id,
        row_id=asked.row.id,
        teacher="",
        prompt_key=key,
        score_key=score_key(RecordedTeacher(model="T", version=teacher).identity, key, ids),
        text="…",
        stop_reason="stop",
        token_ids=ids,
        student_logprobs=-rng.random(tokens).astype(np.float32),
        teacher_logprobs=logprobs[:, 0].copy(),
        top_k=TopK(token_ids=top, logprobs=logprobs),
    )


def recorded(folder: Path, prompts: Sequence[Prompt], part: int = 3, length: int | None = None) -> Path:
    with recorder(folder, manifest()) as to:
        for start in range(0, len(prompts), part):
            to.add([scored(each, length) for each in prompts[start : start + part]])
    return folder
