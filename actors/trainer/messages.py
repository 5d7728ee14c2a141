"""What the driver and the trainer ranks send each other. No torch: the driver imports this module."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from renio_pipeline.config.schema import Opsd, Trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """A checkpoint to go on from."""

    folder: str
    same_shape: bool  # as many ranks as wrote it
    universal: bool = False  # on another number of ranks, and with sharded states: loaded through ``universal_folder``

    @property
    def universal_folder(self) -> str:
        """A scratch folder beside the checkpoint, which every rank sees."""
        folder = Path(self.folder)
        return str(folder.with_name(f".{folder.name}.universal"))


@dataclass(frozen=True, slots=True)
class WriteState:
    """How far a rank's checkpoint is."""

    done: bool
    failure: str | None = None


@dataclass(frozen=True, kw_only=True)
class RankSpec:
    """What a trainer rank is built from."""

    model: str
    trainer: Trainer
    steps: int  # of the whole run, for the learning-rate schedule
    seed: int
    on_gpu: bool = False
    heads: dict[str, tuple[str, str]] = field(default_factory=dict)  # teacher -> model, dtype: for the full-vocabulary loss
    follow: Opsd | None = None  # a teacher whose weights follow the student's
    teacher_dtype: str = "float32"  # of that teacher
    adapter_sync: bool = False  # send the factors alone
    merged_checkpoint: bool = True  # write hf/, the whole model
    restore: Restore | None = None  # go on from a checkpoint
    incarnation: int = 0  # of the run: for the ledger
    transfer_seconds: float = 1800.0  # that each receiver of a weight sync has
    collective_seconds: float = 1920.0  # that a rank waits for the others
    packed_bytes: int | None = None  # of a packed transfer's buffer: see ``sync.packed_bytes``
    kept_heads: int = 2  # versions of a following teacher's head, for payloads that are trained on later


@dataclass(frozen=True, slots=True, kw_only=True)
class RankReport:
    """Sums over a rank's share of a step; the loop adds the ranks up."""

    loss: float
    divergence: float  # sum over samples of the mean over tokens
    tokens: int  # prompt and response
    padded_tokens: int  # as computed
    mismatch_sum: float  # of |generator - trainer| log-probability
    mismatch_max: float
    response_tokens: int
    busy_seconds: float
