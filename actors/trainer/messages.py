"""What the driver and the trainer ranks send each other. No torch: the driver imports this module."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from renio_pipeline.config.schema import Opsd, Trainer
from renio_pipeline.objectives.agreement import Agreement
from renio_pipeline.run_dir.fence import NO_FENCE, Fence
from renio_pipeline.types import EndTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """A checkpoint to resume from."""

    folder: str
    same_shape: bool  # this group has as many ranks as wrote it
    universal: bool = False  # on another number of ranks, and with sharded states: loaded through ``universal_folder``

    @property
    def universal_folder(self) -> str:
        """A scratch folder beside the checkpoint, which every rank sees."""
        folder = Path(self.folder)
        return str(folder.with_name(f".{folder.name}.universal"))


@dataclass(frozen=True, slots=True)
class WriteState:
    """The progress of writing a rank's checkpoint."""

    done: bool
    failure: str | None = None


@dataclass(frozen=True, kw_only=True)
class RankSpec:
    """The specification of a trainer rank."""

    model: str
    trainer: Trainer
    steps: int  # of the whole run, for the learning-rate schedule
    passes: int = 1  # optimizer steps in each of them
    seed: int
    on_gpu: bool = False
    heads: dict[str, tuple[str, str]] = field(default_factory=dict)  # (model, dtype) by teacher, for the exact loss
    end_tokens: dict[str, EndTokens] = field(default_factory=dict)  # by teacher
    shared_tokens: dict[str, np.ndarray] = field(default_factory=dict)  # by teacher with another tokenizer
    follow: Opsd | None = None  # a teacher whose weights follow the student's
    teacher_dtype: str = "float32"  # of that teacher
    adapter_sync: bool = False  # send only the LoRA factors
    merged_checkpoint: bool = True  # write hf/, the full model
    restore: Restore | None = None  # resume from this checkpoint
    incarnation: int = 0  # of the run: for the ledger
    transfer_seconds: float = 1800.0  # the time each receiver of a weight sync has
    collective_seconds: float = 1920.0  # how long a rank waits for the others
    packed_bytes: int | None = None  # buffer size of a packed transfer: see ``sync.packed_bytes``
    kept_heads: int = 2  # versions of a following teacher's head, for payloads that are trained on later
    fence: Fence = NO_FENCE  # of the run's directory, into which a rank writes its ledger and its part of checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class RankReport:
    """Sums over micro-batches: those of a rank, or with ``+`` those of all ranks."""

    loss: float = 0.0
    divergence: float = 0.0  # sum over samples of the mean over a response's tokens
    magnitude: float = 0.0  # of the loss without token factors, see ``loss_magnitudes``
    after_pivotal: float = 0.0  # its part after the first pivotal token of each sample
    tokens: int = 0  # prompt and response
    padded_tokens: int = 0  # as computed
    mismatch_sum: float = 0.0  # of |generator - trainer| log-probability, over response tokens
    mismatch_max: float = 0.0
    response_tokens: int = 0  # that a generator wrote
    agreement: Agreement = field(default_factory=Agreement)
    measured: dict[str, float] = field(default_factory=dict)  # by the objective: a metric's sum over response tokens
    busy_seconds: float = 0.0

    def __add__(self, other: RankReport) -> RankReport:
        summed = {name: getattr(self, name) + getattr(other, name) for name in self.__slots__ if name != "measured"}
        names = dict.fromkeys([*self.measured, *other.measured])
        measured = {name: self.measured.get(name, 0.0) + other.measured.get(name, 0.0) for name in names}
        largest = max(self.mismatch_max, other.mismatch_max)
        return RankReport(**summed | {"mismatch_max": largest, "measured": measured})

    @property
    def padding(self) -> float:
        """The share of the computed tokens that were padding."""
        return 1 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0

    @property
    def mismatch_mean(self) -> float:
        return self.mismatch_sum / max(1, self.response_tokens)
