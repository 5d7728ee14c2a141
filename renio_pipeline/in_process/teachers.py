"""Teachers in this process, as transformers forward passes."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Sequence

import numpy as np

from renio_pipeline.alignment.retokeniser import CannotScore, Retokenised, Retokeniser
from renio_pipeline.config import RunConfig
from renio_pipeline.models import info
from renio_pipeline.models.heads import head_of
from renio_pipeline.models.teacher import Scorer, fill_rows
from renio_pipeline.objectives.projection import Head
from renio_pipeline.preflight import Prepared
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.stages.continuations import by_request, single_requests
from renio_pipeline.stages.teacher_mixture import mixed
from renio_pipeline.types import (
    Busy,
    Continuation,
    ContinuationRequest,
    Hidden,
    Payload,
    Rollout,
    ScoredRollout,
    ScoreRequest,
    ScorerSpec,
    TeacherScores,
    Version,
)

ROW_TOKENS = 384  # per row: attention costs the square of the row, which dominates in a small model


class InProcessTeachers:
    """One Scorer per teacher. The weights never change; a payload is the table itself, not an object reference."""

    def __init__(self, config: RunConfig, prepared: Prepared) -> None:
        self._end_tokens, self._mixture, self._retokenisers = prepared.end_tokens, config.mixture, prepared.retokenisers
        self.quarantine = QuarantineLog(None, lambda text: None)
        self._busy = 0.0
        self._scorers: dict[str, Scorer] = {}
        for name, teacher in config.all_teachers.items():
            spec = ScorerSpec(
                model=info.resolve(config.teacher_model(name)),
                dtype=teacher.dtype,
                temperature=config.temperature,
                vocab_size=prepared.sizes_of(name).vocab_size,
                kind=config.objective.payload.scored,
                top_k=config.objective.payload.top_k,
                attention=teacher.attention,
                name=name,
                end_tokens=prepared.end_tokens.get(name, ()),
            )
            self._scorers[name] = Scorer(spec)

    @property
    def size(self) -> int:
        return len(self._scorers)

    def head(self, teacher: str, version: Version) -> Head:
        """The output head that turns this teacher's hidden states into logits."""
        scorer = self._scorers[teacher]
        assert version == scorer.version, f"states of version {version}, but this teacher is {scorer.version}"
        return head_of(scorer.model).exchanged(self._end_tokens.get(teacher, ()))

    def dispatch(self) -> None:
        pass

    async def score(self, rollouts: AsyncIterator[Rollout], step: int) -> list[ScoredRollout]:
        by_teacher: dict[str, list[Rollout]] = {name: [] for name in self._scorers}
        async for rollout in rollouts:
            for name in by_teacher if self._mixture else [self._name(rollout.prompt.row.teacher)]:
                by_teacher[name].append(rollout)
        started = time.perf_counter()
        scored = {name: self._score(name, own) for name, own in by_teacher.items()}
        self._busy += time.perf_counter() - started
        if self._mixture:
            return mixed(scored, self._mixture)
        return sorted(itertools.chain.from_iterable(scored.values()), key=lambda s: s.rollout.sample_id)

    async def write(self, requests: Sequence[ContinuationRequest]) -> list[list[Continuation]]:
        started = time.perf_counter()
        found: dict[int, list[Continuation]] = {}
        for name, scorer in self._scorers.items():
            places = [place for place, r in enumerate(requests) if self._name(r.teacher) == name]
            own = [requests[place] for place in places]
            found |= dict(zip(places, by_request(own, scorer.write(single_requests(own))), strict=True))
        self._busy += time.perf_counter() - started
        return [found[place] for place in range(len(requests))]

    def _name(self, teacher: str | None) -> str:
        """The teacher that is meant by what a row or a request names."""
        return (teacher or "") if len(self._scorers) > 1 else next(iter(self._scorers))

    def _score(self, name: str, rollouts: Sequence[Rollout]) -> list[ScoredRollout]:
        scorer, retokeniser = self._scorers[name], self._retokenisers.get(name)
        if retokeniser is None:
            return self._scored(scorer, rollouts)
        read = [(r, own) for r in rollouts if (own := self._read(retokeniser, name, r)) is not None]
        scored = self._scored(scorer, [own.rollout for _, own in read])
        return [retokeniser.laid(r, own, s) for (r, own), s in zip(read, scored, strict=True)]

    def _read(self, retokeniser: Retokeniser, name: str, rollout: Rollout) -> Retokenised | None:
        try:
            return retokeniser.read(rollout)
        except CannotScore as error:
            self.quarantine.add(rollout.sample_id, str(error), name or "teacher", rollout.prompt.row.id)
            return None

    def _scored(self, scorer: Scorer, rollouts: Sequence[Rollout]) -> list[ScoredRollout]:
        requests = [
            ScoreRequest(sample_id=r.sample_id, prompt_ids=r.prompt.teacher_ids, response_ids=r.token_ids) for r in rollouts
        ]
        found = [scorer.score(row) for row in fill_rows(requests, ROW_TOKENS)]
        logprobs = [own for row, _ in found for own in row]
        payload = {i: table for _, tables in found for i, table in tables.items()}
        return [
            ScoredRollout(rollout=r, scores=_scores(r.sample_id, own, payload))
            for r, own in zip(rollouts, logprobs, strict=True)
        ]

    async def busy_seconds(self) -> Busy:
        return {"0": self._busy}


def _scores(sample_id: int, logprobs: np.ndarray, payload: dict[int, Payload]) -> TeacherScores:
    own = payload.get(sample_id)
    table = None if own is None else {sample_id: own}
    return TeacherScores(sample_id=sample_id, logprobs=logprobs, payload=table, payload_bytes=0 if own is None else _bytes(own))


def _bytes(payload: Payload) -> int:
    return payload.values.nbytes if isinstance(payload, Hidden) else payload.token_ids.nbytes + payload.logprobs.nbytes
