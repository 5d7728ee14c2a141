"""A run's samples as its page shows them: all weights and verdicts, and the responses of some steps, token by token."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from renio_pipeline.report.choice import fitting, spread
from renio_pipeline.report.pieces import Pieces, load_tokenizer
from renio_pipeline.report.recorded import RecordedRun
from renio_pipeline.run_dir.batches import Batch
from renio_pipeline.types import Verdict

VERDICTS: tuple[Verdict | None, ...] = ("correct", "incorrect", "unfinished", None)
MOST_WEIGHTS = 200_000  # samples per run whose weights the page contains


@dataclass(frozen=True, kw_only=True)
class Samples:
    weights: list[Batch]  # by step; evenly spaced steps if there are very many
    reader: dict[str, Any]  # ready for JSON
    notes: list[str]  # what was left out, and why


def read_samples(run: RecordedRun, steps: Sequence[int], most_tokens: int) -> Samples:
    """Read a run's samples.

    Args:
        steps: the steps whose responses to include; empty: as many evenly spaced steps as ``most_tokens`` allows.
        most_tokens: the room for responses, in tokens.

    Raises:
        ConfigError: a file is damaged.
    """
    weights = [batch for batch in run.batches.values() if batch.sample_ids]
    there = [batch for batch in weights if batch.step in run.sample_files]
    held = [w for w in there if w.step in steps]
    if not steps:
        held = fitting(there, [int(w.tokens.sum()) for w in there], most_tokens, least=2)
    pieces = Pieces(load_tokenizer(run.path, run.config.student)) if held else Pieces(None)
    without = bool(held) and not pieces.known
    problems: dict[str, int] = {}
    room = most_tokens // max(1, len(held))
    entries = [_entry(run, w, pieces, problems, room, with_text=without) for w in held]
    cut = sum(len(w.tokens) - len(entry["sample"]) for w, entry in zip(held, entries, strict=True))
    weighed = [w for w in weights if w.weighed]
    shown = spread(weighed, MOST_WEIGHTS * len(weighed) // max(1, sum(len(w.weight) for w in weighed)))
    notes = [
        f"The reader shows the samples of {len(held)} of {len(weights)} steps; --steps chooses others."
        * (len(held) < len(weights)),
        f"{cut} samples of these steps are left out, evenly by weight: they have too many tokens for a page." * bool(cut),
        f"The weights are those of {len(shown)} of {len(weighed)} steps." * (len(shown) < len(weighed)),
        "No tokenizer could be loaded, neither a checkpoint's nor the student's: tokens are shown by their ids." * without,
        f"In {pieces.inexact} responses, blanks between tokens may differ from the response's text." * bool(pieces.inexact),
    ]
    reader = {"pieces": pieces.table(), "problems": list(problems), "steps": entries}
    return Samples(weights=shown, reader=reader, notes=[note for note in notes if note])


def _entry(
    run: RecordedRun, of: Batch, pieces: Pieces, problems: dict[str, int], room: int, *, with_text: bool
) -> dict[str, Any]:
    """A step's samples in columns, the heaviest first; the columns of tokens concatenate all samples."""
    by_weight = [int(i) for i in np.argsort(-of.weight, kind="stable")]
    chosen = fitting(by_weight, [int(of.tokens[i]) for i in by_weight], room)
    every = {r["sample_id"]: r for r in run.samples(of.step)}
    records = [every[of.sample_ids[i]] for i in chosen if of.sample_ids[i] in every]
    return {
        "step": of.step,
        "sample": [r["sample_id"] for r in records],
        "row": [r["row"] for r in records],
        "problem": [problems.setdefault(r["problem"], len(problems)) for r in records],
        "verdict": [VERDICTS.index(r["verdict"]) for r in records],
        "weight": [round(r.get("weight", 1.0), 6) for r in records],
        "raw": [round(r["raw_weight"], 6) if "raw_weight" in r else None for r in records],
        "reward": [r["reward"] for r in records] if _has("reward", records) else None,
        "advantage": [round(r["advantage"], 6) for r in records] if _has("advantage", records) else None,
        "stop": [r["stop_reason"] for r in records],
        "version": [f"{r['version']} to {r['last_version']}" if "last_version" in r else r["version"] for r in records],
        "generator": [r["generator"] for r in records],
        "teacher": [r.get("teacher", "") for r in records],
        "pivotal": [r.get("pivotal", []) for r in records],
        "length": [len(r["token_ids"]) for r in records],
        "tokens": packed([p for r in records for p in pieces.cut(r["token_ids"], r["response"])], "<u4"),
        "student": _column("student_logprobs", records),
        "teacher_logprob": _column("teacher_logprobs", records),
        "factor": _column("token_factors", records),
        "text": [r["response"] for r in records] if with_text else None,
    }


def _has(name: str, records: Sequence[dict[str, Any]]) -> bool:
    """Whether a step's samples have a field that not every run has: then all of them have it."""
    return bool(records) and all(name in r for r in records)


def _column(name: str, records: Sequence[dict[str, Any]]) -> str | None:
    """Such a field with a number a token, packed."""
    return packed([x for r in records for x in r[name]], "<f4") if _has(name, records) else None


def packed(values: ArrayLike, dtype: str) -> str:
    """An array as base64 of its little-endian bytes."""
    return base64.b64encode(np.asarray(values, dtype).tobytes()).decode("ascii")
