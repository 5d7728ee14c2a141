"""One part of a recording: a table of responses, and their arrays end to end."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from renio_pipeline.recordings.manifest import regular
from renio_pipeline.run_dir.checkpoint_files import write_durably
from renio_pipeline.types import StopReason, TopK

TABLE, ARRAYS = ".parquet", ".safetensors"
COLUMNS = ("sample_id", "row_id", "teacher", "prompt_key", "score_key", "tokens", "stop_reason")


class DamagedError(ValueError):
    """A part cannot be read, or has what cannot be true. The text names the file, and the row where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A recorded response without its arrays."""

    sample_id: int  # in the recording
    row_id: str
    teacher: str
    prompt_key: str
    score_key: str
    tokens: int  # T
    stop_reason: StopReason
    part: Path  # the table's file
    start: int  # of its tokens in the part's arrays


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A response with a teacher's signals, as a part holds it."""

    sample_id: int
    row_id: str
    teacher: str
    prompt_key: str
    score_key: str
    text: str
    stop_reason: StopReason
    token_ids: np.ndarray  # [T] int32
    student_logprobs: np.ndarray  # [T] float32, by the student that wrote it, at τ
    teacher_logprobs: np.ndarray  # [T] float32
    top_k: TopK | None = None


def unlearnable(response: Scored) -> str | None:
    """What no run could learn from in a response; None: nothing."""
    tables = {} if response.top_k is None else {"top_k_logprobs": response.top_k.logprobs}
    own = {"student_logprobs": response.student_logprobs, "teacher_logprobs": response.teacher_logprobs}
    return next((f"{name} {why}" for name, v in (own | tables).items() if (why := not_a_logprob(v)) is not None), None)


def write_part(path: Path, responses: Sequence[Scored]) -> None:
    """Write a part; ``path`` is its table's. A crash before the end leaves none, or arrays that no table names."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.numpy import save

    arrays: dict[str, Any] = {
        "token_ids": np.concatenate([r.token_ids for r in responses]).astype(np.int32),
        "student_logprobs": np.concatenate([r.student_logprobs for r in responses]).astype(np.float32),
        "teacher_logprobs": np.concatenate([r.teacher_logprobs for r in responses]).astype(np.float32),
    }
    tables = [r.top_k for r in responses if r.top_k is not None]
    if tables:
        arrays["top_k_ids"] = np.concatenate([t.token_ids for t in tables]).astype(np.int32)
        arrays["top_k_logprobs"] = np.concatenate([t.logprobs for t in tables]).astype(np.float32)
    columns: dict[str, list[Any]] = {name: [getattr(r, name) for r in responses] for name in COLUMNS if name != "tokens"}
    columns |= {"tokens": [len(r.token_ids) for r in responses], "text": [r.text for r in responses]}
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    write_durably(path.with_suffix(ARRAYS), save(arrays))
    write_durably(path, file.getvalue())


def read_entries(path: Path) -> list[Entry]:
    """A part's responses without their arrays. Raises DamagedError."""
    import pyarrow.parquet as pq

    try:
        regular(path)
        table = pq.read_table(path, columns=list(COLUMNS), use_threads=False, memory_map=False, partitioning=None)
        columns = {name: table.column(name).to_pylist() for name in COLUMNS}
    except Exception as error:  # pyarrow raises many types for a damaged file
        raise DamagedError(f"{path} cannot be read: {first_line(error)}") from None
    found: list[Entry] = []
    start = 0
    for values in zip(*(columns[name] for name in COLUMNS), strict=True):
        sample_id, row_id, teacher, prompt, score, tokens, stop = values
        texts = (row_id, teacher, prompt, score)
        if not all(isinstance(text, str) for text in texts) or stop not in ("stop", "length"):
            raise DamagedError(f"{path}: row {len(found)} has a text that is missing, or an unknown stop_reason {stop!r}")
        if not isinstance(sample_id, int) or not isinstance(tokens, int) or sample_id < 0 or tokens < 0:
            raise DamagedError(f"{path}: row {len(found)} has sample_id {sample_id!r} and tokens {tokens!r}")
        found.append(
            Entry(
                sample_id=sample_id, row_id=row_id, teacher=teacher, prompt_key=prompt, score_key=score, tokens=tokens,
                stop_reason=stop, part=path, start=start,
            )
        )  # fmt: skip
        start += tokens
    return found


def not_a_logprob(values: np.ndarray) -> str | None:
    """The first of [T, ...] values that is no log-probability, and its token; None: all are."""
    bad = ~(values <= 1e-3)  # NaN too; rounding may lift a certain token's a little above 0
    if not bad.any():
        return None
    return f"has {values[bad][0]!s} at token {int(np.argwhere(bad)[0][0])}, which is no log-probability"


def first_line(error: Exception) -> str:
    """What an error says, without what follows."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
