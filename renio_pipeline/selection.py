"""Which of the student's responses a step trains on: all, or those with the verdict that the user asked for.

Responses are judged as they come, while the driver waits for the next one anyway, and filtered before a teacher sees them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from renio_pipeline.config import RunConfig
from renio_pipeline.tasks import Task
from renio_pipeline.types import Prompt, Rollout, Verdict

MOST_DRAWN = 16  # times batch_size: a student that is (almost) never wrong must not draw for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A response that was read once, for grading and logs."""

    rollout: Rollout
    text: str
    verdict: Verdict | None


Judge = Callable[[Rollout], Judged]


def judge_of(task: Task, tokenizer: Any) -> Judge:
    def judge(rollout: Rollout) -> Judged:
        text = tokenizer.decode(rollout.token_ids, skip_special_tokens=True)
        verdict = task.verify(rollout.prompt.row, text)
        if verdict is not None and rollout.stop_reason == "length":
            verdict = "unfinished"  # it was cut: what stands last is not what it would have said last
        return Judged(rollout=rollout, text=text, verdict=verdict)

    return judge


class Selection:
    """One step's samples: drawn, written, judged, and kept or dropped.

    With ``filter_batch: refill`` more prompts are drawn, as many as are missing, until ``batch_size`` samples are kept or 16
    times as many were drawn; with ``shrink`` the batch is what is kept of one draw. A step without a filter draws once, so that
    its sample ids are consecutive: a rejected one is not made up for.
    """

    def __init__(
        self, config: RunConfig, draw: Callable[[int], Sequence[Prompt]], judge: Judge, rejected: Collection[int] = ()
    ) -> None:
        """``rejected``: samples that a pool set aside; it grows while the step is under way."""
        self._config, self._draw, self._judge, self._rejected = config, draw, judge, rejected
        self.judged: dict[int, Judged] = {}  # every response of the step, by sample id
        self.kept: list[int] = []  # sample ids

    async def responses(self, write: Callable[[Sequence[Prompt]], AsyncIterator[Rollout]]) -> AsyncIterator[Rollout]:
        """Yield each response that is kept, as it ends. ``write`` must yield every prompt's exactly once."""
        size = self._config.batch_size
        while True:
            prompts = self._draw(size - len(self.kept))
            came: list[int] = []
            async for rollout in write(prompts):
                came.append(rollout.sample_id)
                found = self.judged[rollout.sample_id] = self._judge(rollout)
                if self._keeps(found.verdict):
                    self.kept.append(rollout.sample_id)
                    yield rollout
            exactly_once(came, [p.sample_id for p in prompts if p.sample_id not in self._rejected])
            once = self._config.filter == "all" or self._config.filter_batch == "shrink"
            if once or len(self.kept) == size or len(self.judged) >= MOST_DRAWN * size:
                return

    def _keeps(self, verdict: Verdict | None) -> bool:
        if self._config.filter == "all":
            return True
        return verdict == self._config.filter or (verdict == "unfinished" and self._config.unfinished)


def exactly_once(came: Sequence[int], sent: Sequence[int]) -> None:
    """Every sample that was sent out must have come back, once."""
    assert sorted(came) == sorted(sent), f"samples {sorted(sent)} were sent out, {sorted(came)} came back"
