"""``method.reason_first``: before a teacher scores a problem's responses, it writes an analysis, which stands in its prompt.

    prompts ──> generators ──> responses ──┐
       │                                   ├──> the teacher's prompt with its analysis ──> teachers.score
       └──> teachers.write ──> analysis ───┘

An analysis is asked for when its problem's responses are, so that both are written at the same time; with a filter, when the
first response is kept. It is written once for each problem and version of the teacher, recorded in the run's directory, and
read from there ever after.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from renio_pipeline.config import RunConfig
from renio_pipeline.config.schema import ReasonFirst
from renio_pipeline.run_dir.analyses import AnalysisLog
from renio_pipeline.stages.faults import KillsWorkers
from renio_pipeline.stages.protocols import Generators, Stages, Teachers
from renio_pipeline.stages.seeds import sample_seed
from renio_pipeline.types import (
    FIRST_VERSION,
    Busy,
    Continuation,
    ContinuationRequest,
    Prompt,
    Rollout,
    Row,
    ScoredRollout,
    Version,
)

Text = asyncio.Future[str]


class Read(Protocol):
    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> int: ...
    @property
    def truncated(self) -> bool: ...


class Prompts(Protocol):
    """``renio_pipeline.data.analyses.AnalysisPrompts``."""

    def asked(self, rows: Sequence[Row]) -> list[np.ndarray]: ...
    def read(self, written: Continuation) -> Read: ...
    def taught(self, row: Row, text: str) -> np.ndarray: ...


@dataclass(kw_only=True)
class Surroundings:
    """What the stage has to do with the run around it."""

    log: AnalysisLog
    seed: int
    deterministic: bool
    routed: bool  # each row names its teacher
    version: Callable[[], Version] = lambda: FIRST_VERSION  # of the teacher
    quarantine: Callable[[int, str, str, str], None] | None = None  # see ``QuarantineLog.add``
    note: Callable[[str], None] = lambda text: None


class ReasoningTeachers:
    """Teachers that have the problem's analysis in their prompts. Usage: ``expect`` prompts early, then ``score`` as ever."""

    def __init__(self, teachers: Teachers, prompts: Prompts, settings: ReasonFirst, around: Surroundings) -> None:
        self._teachers, self._prompts, self._settings, self._around = teachers, prompts, settings, around
        self._under_way: dict[str, Text] = {}  # by key; one that kills its workers stays
        self._expected: dict[int, Text] = {}  # by sample id
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()  # of calls in a deterministic run
        self._told: set[str] = set()

    @property
    def size(self) -> int:
        return self._teachers.size

    def dispatch(self) -> None:
        self._teachers.dispatch()

    async def busy_seconds(self) -> Busy:
        return await self._teachers.busy_seconds()

    async def write(self, requests: Sequence[ContinuationRequest]) -> list[list[Continuation]]:
        async with self._turn if self._around.deterministic else nullcontext():
            return await self._teachers.write(requests)

    def expect(self, prompts: Sequence[Prompt]) -> None:
        """Begin the analyses of these samples' problems, which are scored later. Held-out problems need none."""
        samples = [p for p in prompts if p.sample_id >= 0]
        texts = self._texts([p.row for p in samples])
        self._expected |= {p.sample_id: text for p, text in zip(samples, texts, strict=True)}

    async def score(self, rollouts: AsyncIterator[Rollout], step: int) -> list[ScoredRollout]:
        """Score each rollout after its problem's analysis. A sample whose analysis kills the workers is quarantined."""
        taught = self._in_order(rollouts) if self._around.deterministic else self._as_they_come(rollouts)
        return await self._teachers.score(taught, step)

    async def _in_order(self, rollouts: AsyncIterator[Rollout]) -> AsyncIterator[Rollout]:
        arrived = sorted([r async for r in rollouts], key=lambda r: r.sample_id)
        for rollout, text in zip(arrived, self._analyses_of(arrived), strict=True):
            if (taught := await self._taught(rollout, text)) is not None:
                yield taught

    async def _as_they_come(self, rollouts: AsyncIterator[Rollout]) -> AsyncIterator[Rollout]:
        arriving: asyncio.Future[Rollout | None] | None = asyncio.ensure_future(anext(rollouts, None))
        waiting: set[asyncio.Future[Rollout | None]] = set()
        try:
            while arriving or waiting:
                await asyncio.wait({*waiting, *([arriving] if arriving else [])}, return_when=asyncio.FIRST_COMPLETED)
                if arriving and arriving.done():
                    if (rollout := arriving.result()) is not None:
                        waiting.add(asyncio.ensure_future(self._taught(rollout, *self._analyses_of([rollout]))))
                    arriving = asyncio.ensure_future(anext(rollouts, None)) if rollout is not None else None
                for done in [each for each in waiting if each.done()]:
                    waiting.discard(done)
                    if (taught := done.result()) is not None:
                        yield taught
        finally:
            left = [*waiting, *([arriving] if arriving else [])]
            for each in left:
                each.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _analyses_of(self, rollouts: Sequence[Rollout]) -> list[Text]:
        new = [r for r in rollouts if r.sample_id not in self._expected]
        self._expected |= {r.sample_id: text for r, text in zip(new, self._texts([r.prompt.row for r in new]), strict=True)}
        return [self._expected.pop(r.sample_id) for r in rollouts]

    async def _taught(self, rollout: Rollout, text: Text) -> Rollout | None:
        row = rollout.prompt.row
        try:
            analysis = await asyncio.shield(text)
        except KillsWorkers as error:
            if self._around.quarantine is None:
                raise
            self._around.quarantine(rollout.sample_id, f"its analysis: {error}", row.teacher or "teacher", row.id)
            return None
        return replace(rollout, prompt=replace(rollout.prompt, teacher_ids=self._prompts.taught(row, analysis)))

    def _texts(self, rows: Sequence[Row]) -> list[Text]:
        """The analyses of rows, those that are not recorded yet to be written from now on."""
        version, found = self._around.version(), list[Text]()
        new: dict[str, tuple[Row, np.ndarray]] = {}
        for row, ids in zip(rows, self._prompts.asked(rows), strict=True):
            if row.teacher_prompt:  # as it stands, without an analysis
                found.append(asyncio.get_running_loop().create_future())
                found[-1].set_result("")
                continue
            teacher = (row.teacher or "") if self._around.routed else ""
            key = _key(ids, teacher, version)
            if key not in self._under_way:
                text: Text = asyncio.get_running_loop().create_future()
                text.add_done_callback(lambda t: t.cancelled() or t.exception())  # never "never retrieved"
                if (recorded := self._around.log.get(key)) is not None:
                    text.set_result(recorded)
                    found.append(text)
                    continue
                self._under_way[key] = text
                new[key] = (row, ids)
            found.append(self._under_way[key])
        for part in [new] if self._around.deterministic else [{key: each} for key, each in new.items()]:
            if part:
                task = asyncio.create_task(self._write(part))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return found

    async def _write(self, asked: dict[str, tuple[Row, np.ndarray]]) -> None:
        """Have analyses written, record them, and hand them to those who wait for them."""
        try:
            async with self._turn if self._around.deterministic else nullcontext():
                written = await self._teachers.write([self._request(key, *each) for key, each in asked.items()])
            texts = {key: self._prompts.read(one) for key, (one,) in zip(asked, written, strict=True)}
            version = str(self._around.version())
            self._around.log.add(
                [
                    {
                        "key": key, "row": asked[key][0].id, "teacher": asked[key][0].teacher, "version": version,
                        "tokens": text.tokens, "truncated": text.truncated, "text": text.text,
                    }
                    for key, text in texts.items()
                ]
            )  # fmt: skip
            for key, text in texts.items():
                self._tell(asked[key][0], text)
                self._under_way.pop(key).set_result(text.text)
        except BaseException as error:  # a cancellation too: whoever waits must not wait for ever
            if isinstance(error, KillsWorkers) and len(asked) > 1:  # the fault of one of them
                for key, each in asked.items():
                    await self._write({key: each})
                return
            for key in asked:
                text_or_none = self._under_way.get(key)
                if text_or_none is not None and not text_or_none.done():
                    text_or_none.set_exception(error if isinstance(error, Exception) else RuntimeError("it was cancelled"))
                if not isinstance(error, KillsWorkers):
                    self._under_way.pop(key, None)
            if not isinstance(error, Exception):
                raise

    def _request(self, key: str, row: Row, ids: np.ndarray) -> ContinuationRequest:
        own = self._settings
        return ContinuationRequest(
            prompt_ids=ids,
            max_tokens=own.max_tokens,
            seed=sample_seed(self._around.seed, int(key, 16)),
            temperature=own.temperature,
            top_p=own.top_p,
            top_k=own.top_k,
            teacher=row.teacher if self._around.routed else None,
        )

    def _tell(self, row: Row, found: Read) -> None:
        """Note the first analysis that is empty, and the first that was truncated."""
        for kind, text in (
            ("empty" * (not found.text), "is empty; its teacher sees the solution without one"),
            ("cut" * found.truncated, f"was cut at {found.tokens} tokens; raise method.reason_first.max_tokens if many are"),
        ):
            if kind and kind not in self._told:
                self._told.add(kind)
                self._around.note(f"the analysis of row {row.id!r} {text} (analyses.jsonl has all of them)")


class ExpectingGenerators:
    """Generators that tell ``ReasoningTeachers`` which prompts they get."""

    def __init__(self, generators: Generators, teachers: ReasoningTeachers) -> None:
        self._generators, self._teachers = generators, teachers

    @property
    def size(self) -> int:
        return self._generators.size

    def generate(self, prompts: Sequence[Prompt], temperature: float) -> AsyncIterator[Rollout]:
        self._teachers.expect(prompts)
        return self._generators.generate(prompts, temperature)

    async def busy_seconds(self) -> Busy:
        return await self._generators.busy_seconds()


def with_analyses(stages: Stages, config: RunConfig, prompts: Prompts | None, log: AnalysisLog, **around: Any) -> Stages:
    """The stages as ``method.reason_first`` asks for them. ``around``: the further fields of ``Surroundings``."""
    settings = config.reason_first
    if settings is None:
        return stages
    assert prompts is not None, "the run was prepared without the prompts for analyses"
    assert stages.teachers is not None, "there is no teacher that could write an analysis"
    made = Surroundings(
        log=log, seed=config.seed, deterministic=config.deterministic, routed=config.teachers is not None, **around
    )
    teachers = ReasoningTeachers(stages.teachers, prompts, settings, made)
    early = config.filter == "all"  # otherwise many would be written for nothing
    generators = ExpectingGenerators(stages.generators, teachers) if early else stages.generators
    return replace(stages, generators=generators, teachers=teachers)


def _key(prompt_ids: np.ndarray, teacher: str, version: Version) -> str:
    """Of everything that an analysis depends on within a run. A version's number is enough: the weights of a run that goes on
    are those that it had, and it shall show the texts that it showed."""
    digest = hashlib.blake2b(f"{teacher}/{version.number}/".encode(), digest_size=12)
    digest.update(prompt_ids.astype("<i4").tobytes())
    return digest.hexdigest()
