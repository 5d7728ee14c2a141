"""The responses that a teacher's pool is asked to score, and the batches that they are scored in."""

from __future__ import annotations

from dataclasses import dataclass

from actors.pools.jobs import SampleJob
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.types import Rollout


@dataclass(eq=False, kw_only=True)
class Scoring(SampleJob):
    rollout: Rollout
    step: int
    payload_bytes: int

    @property
    def tokens(self) -> int:
        return len(self.prompt.teacher_ids) + len(self.rollout.token_ids)


@dataclass
class Batch:
    """Collects a batch: its tokens so far, and its share of the payload budget."""

    budget: PayloadBudget
    max_tokens: int
    tokens: int = 0

    def fits(self, job: Scoring) -> bool:
        """Add a job if it fits into the batch, which takes at least one, and into the budget. Returns whether it did."""
        if self.tokens and self.tokens + job.tokens > self.max_tokens:
            return False
        if not self.budget.fits(job.step, job.payload_bytes):
            return False
        self.budget.take(job.step, 1, job.payload_bytes)
        self.tokens += job.tokens
        return True


def check_in_vocabulary(rollout: Rollout, vocab_size: int) -> None:
    """Raises ValueError for a token id outside the shared vocabulary, whose probability would be another token's."""
    ids = rollout.token_ids
    if len(ids) and (ids.min() < 0 or ids.max() >= vocab_size):
        outside = ids[(ids < 0) | (ids >= vocab_size)]
        raise ValueError(
            f"sample {rollout.sample_id}: the response has token id {outside[0]}, outside the {vocab_size} entries that the "
            "output heads of student and teacher share"
        )
