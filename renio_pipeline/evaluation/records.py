"""What an evaluation records about each problem: the lines of its JSONL files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from renio_pipeline.types import Row, StopReason, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One response."""

    answer: str | None  # None: the response has no final answer
    verdict: Verdict
    tokens: int  # including the end token
    stop_reason: StopReason
    response: str
    markers: Mapping[str, int] = field(default_factory=dict)  # reflection markers in the response, with counts

    given_up: bool = False  # grading took too long or killed two graders: counts as incorrect

    @property
    def correct(self) -> bool:
        return self.verdict == "correct"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem and its n responses."""

    id: str
    problem: str
    gold: str | None
    samples: tuple[Sample, ...]

    @classmethod
    def of(cls, row: Row, samples: Sequence[Sample]) -> Problem:
        return cls(id=row.id, problem=row.problem, gold=row.answer, samples=tuple(samples))

    @classmethod
    def parse(cls, line: str) -> Problem:
        """Read what ``line`` wrote. Raises ValueError, KeyError or TypeError for anything else, or if there are no samples."""
        values: dict[str, Any] = json.loads(line)
        samples = tuple(Sample(**sample) for sample in values["samples"])
        if not samples:
            raise ValueError("it has no samples, so that no share of them is correct")
        if unknown := [sample.verdict for sample in samples if sample.verdict not in get_args(Verdict)]:
            raise ValueError(f"{unknown[0]!r} is no verdict; there are {', '.join(get_args(Verdict))}")
        return cls(**values | {"samples": samples})

    def line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"
