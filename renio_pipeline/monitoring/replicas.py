"""Work done by each replica and rank, by its slot in the pool: a replacement continues its predecessor's count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric

from renio_pipeline.grading.grader import by_student
from renio_pipeline.stages.outcomes import SkippedStep, StepResult

Place = tuple[str, str]  # pool and replica; never more than the largest size that the pool has had


class Replicas:
    """Filled by one thread; any other thread may collect at the same time."""

    def __init__(self) -> None:
        self._samples: Counter[Place] = Counter()
        self._tokens: Counter[Place] = Counter()
        self._seconds: Counter[Place] = Counter()
        self._seen: dict[Place, tuple[str, float]] = {}  # of each replica's latest process: its id, and its busy seconds

    def observe(self, result: StepResult | SkippedStep) -> None:
        self._add("generator", ((j.rollout.replica, len(j.rollout.token_ids)) for j in by_student(result.judged.values())))
        if isinstance(result, SkippedStep):
            return
        for s in result.scored:
            if s.scores is None:
                continue
            for pool, replica in places_of_teachers(s.scores.replica):
                self._add(pool, [(replica, len(s.rollout.prompt.teacher_ids) + len(s.rollout.token_ids))])
        tokens = {s.rollout.sample_id: len(s.rollout.prompt.student_ids) + len(s.rollout.token_ids) for s in result.scored}
        for rank, share in enumerate(result.report.shares):
            self._add("trainer", ((str(rank), tokens[i]) for i in share))
        for rank, seconds in enumerate(result.report.busy_seconds):
            self._seconds["trainer", str(rank)] += seconds  # type: ignore[assignment]
        for pool, busy in result.busy.items():
            self._worked(pool, busy)

    def _add(self, pool: str, done: Iterable[tuple[str, int]]) -> None:
        for replica, tokens in done:
            self._samples[pool, replica] += 1
            self._tokens[pool, replica] += tokens

    def _worked(self, kind: str, busy: Mapping[str, float]) -> None:
        """``busy``: busy seconds since each process began, by ``REPLICA/PID``, or ``TEACHER/REPLICA/PID`` with several
        teachers."""
        for worker, seconds in busy.items():
            name, _, process = worker.rpartition("/")
            place = place_of_teacher(name) if kind == "teacher" else (kind, name)
            before, earlier = self._seen.get(place, (process, 0.0))
            self._seconds[place] += seconds - (earlier if before == process else 0.0)  # type: ignore[assignment]
            self._seen[place] = process, seconds

    def collect(self, run: str) -> Iterator[Metric]:
        for name, meaning, counted in (
            ("renio_replica_samples", "samples written, scored or trained on", self._samples),
            ("renio_replica_tokens", "response tokens written; prompt and response tokens scored or trained on", self._tokens),
            ("renio_replica_busy_seconds", "busy time; for a rank, the time spent training", self._seconds),
        ):
            family = CounterMetricFamily(name, meaning, labels=["run", "pool", "replica"])
            for (pool, replica), value in list(counted.items()):
                family.add_metric([run, pool, replica], value)
            yield family


def places_of_teachers(replicas: str) -> list[Place]:
    """Those that scored one sample: of a mixture of teachers several, with a plus between them.

    >>> places_of_teachers("maths/0+code/1")
    [('teacher.maths', '0'), ('teacher.code', '1')]
    """
    return [place_of_teacher(replica) for replica in replicas.split("+")]


def place_of_teacher(replica: str) -> Place:
    """The pool and the slot of a teacher's replica.

    >>> place_of_teacher("maths/0"), place_of_teacher("0")
    (('teacher.maths', '0'), ('teacher', '0'))
    """
    name, _, slot = replica.rpartition("/")
    return (f"teacher.{name}" if name else "teacher"), slot
