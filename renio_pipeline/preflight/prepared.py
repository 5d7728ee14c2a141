"""A checked run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from renio_pipeline.alignment.retokeniser import Retokeniser
from renio_pipeline.data.analyses import AnalysisPrompts
from renio_pipeline.data.other_tokenizers import OtherTokenizer
from renio_pipeline.data.solutions import Solutions
from renio_pipeline.recordings.recording import Recording
from renio_pipeline.run_dir.data_record import Stretch
from renio_pipeline.tasks import Task
from renio_pipeline.types import EndTokens, Row


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A checked run: its data, which is read and encoded lazily, and the sizes that the engines are built with."""

    task: Task
    tokenizer: Any
    rows: Sequence[Row]
    prompt_ids: Sequence[np.ndarray]
    teacher_ids: Sequence[np.ndarray]  # of each row, the teacher's own prompt
    held_out: list[Row]
    held_out_ids: list[np.ndarray]
    vocab_size: int  # V: the smaller of the two models' output rows
    context: int  # tokens of the longest prompt, a whole response, and the one token that scoring adds
    payload_token_bytes: dict[str, int]  # of a response token, by teacher
    payload_bytes: int  # the most that a step can take
    stretch: Stretch = field(default_factory=Stretch)  # the order in which rows are drawn, and their fingerprints
    end_tokens: dict[str, EndTokens] = field(default_factory=dict)  # by teacher
    other_tokenizers: dict[str, OtherTokenizer] = field(default_factory=dict)  # by teacher, of those that have their own
    analyses: AnalysisPrompts | None = None  # the prompts of method.reason_first
    solutions: Solutions | None = None  # as responses, for method sft and data.off_policy.source solution
    recordings: dict[str, Recording] = field(default_factory=dict)  # by teacher, of those whose signals were recorded
    clock: str = ""  # the time that the chat template is told, ISO 8601
    notes: tuple[str, ...] = ()  # what was left out of the data, and why

    @property
    def shared_tokens(self) -> dict[str, np.ndarray]:
        """Of the teachers that send likeliest tokens of their own: see ``renio_pipeline.alignment.shared_tokens``."""
        return {name: other.shared for name, other in self.other_tokenizers.items() if other.shared is not None}

    @property
    def retokenisers(self) -> dict[str, Retokeniser]:
        return {name: other.retokeniser for name, other in self.other_tokenizers.items()}

    def sizes_of(self, teacher: str) -> Prepared | OtherTokenizer:
        """What has the ``vocab_size`` and the ``context`` of a teacher's engine."""
        return self.other_tokenizers.get(teacher, self)
