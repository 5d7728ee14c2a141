"""From responses and continuations to findings, with 95 % intervals.

The problems are what varies: several responses to one problem, and several continuations of one beginning, are not independent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from renio_pipeline.evaluation.bootstrap import Estimate, estimate, interval, resampled_means
from renio_pipeline.evaluation.proportions import clustered
from renio_pipeline.metrics.auroc import auroc
from renio_pipeline.metrics.weight_scores import SCORES
from renio_pipeline.probe.continuations import AFTER, BEFORE
from renio_pipeline.probe.responses import Response, marked
from renio_pipeline.probe.results import Findings, Mismatch, Recovery
from renio_pipeline.probe.selection import WRONG

RESAMPLES = 1000
ANY_WRONG = "wrong, together"
OF_ERROR = "wrong: "  # and the kind of error


@dataclass(frozen=True, kw_only=True)
class Continued:
    """A response of which the teacher went on: whether each of its continuations was correct, by point."""

    group: str
    response: Response
    correct: Mapping[str, Sequence[bool]]  # from BEFORE and AFTER the first pivotal token


def findings(
    teacher: str,
    responses: Sequence[Response],
    alone: Mapping[str, bool],
    continued: Sequence[Continued],
    *,
    each: int,
    seed: int,
) -> Findings:
    """What was found of one teacher.

    Args:
        responses: the student's, scored by this teacher.
        alone: whether the teacher's own answer to a problem is correct, by the row's id; without those that have no verdict.
        continued: the responses of which it went on.
        each: the continuations of one beginning.
    """
    graded = [r for r in responses if r.verdict is not None]
    right, wrong = [r for r in graded if not r.wrong], [r for r in graded if r.wrong]
    found = _resampled(responses, seed)
    groups = [
        _recovery(g, [c for c in continued if c.group == g], each, seed) for g in dict.fromkeys(c.group for c in continued)
    ]
    of_wrong = [c for c in continued if c.group in WRONG]
    for kind in sorted({c.response.error for c in of_wrong if c.response.error is not None}):
        groups.append(_recovery(f"{OF_ERROR}{kind}", [c for c in of_wrong if c.response.error == kind], each, seed))
    return Findings(
        teacher=teacher,
        responses=len(responses),
        problems=len({r.prompt.row.id for r in responses}),
        right=len(right),
        wrong=len(wrong),
        student_accuracy=_share(graded, lambda r: not r.wrong),
        teacher_accuracy=clustered(np.array(list(alone.values()), float), np.ones(len(alone))),
        wrong_with_pivotal=_share(wrong, lambda r: r.first is not None),
        right_with_pivotal=_share(right, lambda r: r.first is not None),
        auroc={name: found[name] for name in SCORES if name in found},
        mismatch=_mismatch(responses, found),
        groups=groups,
        recovery=_recovery(ANY_WRONG, of_wrong, each, seed) if of_wrong else None,
        **{key: found.get(key) for key in DIRECT},
    )


DIRECT = ("pivotal_share", "effective_sample_size", "tokens_after", "loss_after", "loss_after_weighted")


def _share(responses: Sequence[Response], counts: Callable[[Response], bool]) -> Estimate | None:
    """The share of the responses that count."""
    trials = Counter(r.prompt.row.id for r in responses)
    successes = Counter(r.prompt.row.id for r in responses if counts(r))
    return clustered(np.array([successes[row] for row in trials], float), np.array(list(trials.values()), float))


def _recovery(group: str, continued: Sequence[Continued], each: int, seed: int) -> Recovery:
    shares = {point: np.array([np.mean(c.correct[point]) for c in continued]) for point in (BEFORE, AFTER)}
    found = {
        point: clustered(
            np.array([sum(c.correct[point]) for c in continued], float),
            np.array([len(c.correct[point]) for c in continued], float),
        )
        for point in (BEFORE, AFTER)
    }
    lost = shares[BEFORE] - shares[AFTER]
    return Recovery(
        group=group,
        prefixes=len(continued),
        continuations=each,
        before=found[BEFORE],
        after=found[AFTER],
        lost=estimate(lost.mean(), resampled_means(lost[:, None], seed=seed)[:, 0]) if len(lost) else None,
    )


def _mismatch(responses: Sequence[Response], found: Mapping[str, Estimate]) -> Mismatch | None:
    if "mismatch" not in found:
        return None
    largest = max((float(_gaps(r).max(initial=0.0)) for r in responses), default=0.0)
    return Mismatch(mean=found["mismatch"], largest=largest, flipped=found.get("flipped"))


def _gaps(response: Response) -> np.ndarray:
    """[T] |generator − trainer| log-probability in nats."""
    assert response.forward is not None
    return np.abs(response.generator.astype(np.float64) - response.forward.logprobs.astype(np.float64))


def _resampled(responses: Sequence[Response], seed: int) -> dict[str, Estimate]:
    """Bootstrap intervals over problems of everything that is a ratio or a rank, without what is undefined."""
    if not responses:
        return {}
    columns = _columns(responses)
    rows = [r.prompt.row.id for r in responses]
    members = [np.flatnonzero(np.array(rows) == row) for row in dict.fromkeys(rows)]
    value = _statistics(columns, np.arange(len(responses)))
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in value}
    for _ in range(RESAMPLES):
        places = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        again = _statistics(columns, places)
        for name in drawn.keys() & again.keys():  # a draw may hold no wrong response at all
            drawn[name].append(again[name])
    found = {}
    for name, each in value.items():
        low, high = interval(np.array(drawn[name])) if drawn[name] else (each, each)
        found[name] = Estimate(value=each, low=low, high=high)
    return found


def _columns(responses: Sequence[Response]) -> dict[str, Any]:
    """A number per response of everything that the statistics need, [N] each."""
    columns: dict[str, Any] = {
        "tokens": [len(r.token_ids) for r in responses],
        "pivotal": [int(r.marked.sum()) for r in responses],
        "after": [int(r.after.sum()) for r in responses],
        "raw": [r.raw for r in responses],
        "graded": [r.verdict is not None for r in responses],
        "wrong": [r.wrong for r in responses],
        **{name: [r.scores[name] for r in responses] for name in SCORES},
    }
    forwards = [r.forward for r in responses]
    if all(f is not None for f in forwards):
        sizes = [np.abs(f.losses) / max(1, len(f.losses)) for f in forwards if f is not None]  # a sampled loss has either sign
        columns["loss"] = [float(s.sum()) for s in sizes]
        columns["loss after"] = [float(s[r.after].sum()) for s, r in zip(sizes, responses, strict=True)]
        columns["gap"] = [float(_gaps(r).sum()) for r in responses]
        both = [(marked(r.generator, r.teacher, r.pivotal), _by_trainer(r)) for r in responses]
        columns["either"] = [int((one | other).sum()) for one, other in both]
        columns["flipped"] = [int((one ^ other).sum()) for one, other in both]
    return {name: np.array(values) for name, values in columns.items()}


def _by_trainer(response: Response) -> np.ndarray:
    assert response.forward is not None
    return marked(response.forward.logprobs, response.teacher, response.pivotal)


def _statistics(columns: Mapping[str, np.ndarray], places: np.ndarray) -> dict[str, float]:
    """The statistics of the responses at ``places``, which may repeat, without those that are undefined."""
    c = {name: values[places] for name, values in columns.items()}
    raw, graded, wrong = c["raw"], c["graded"], c["wrong"]
    found: dict[str, float | None] = {
        "pivotal_share": _ratio(c["pivotal"], c["tokens"]),
        "tokens_after": _ratio(c["after"], c["tokens"]),
        "effective_sample_size": float(raw.sum()) ** 2 / (len(raw) * float((raw**2).sum())),
        **{name: auroc(c[name][graded], wrong[graded]) for name in SCORES},
    }
    if "loss" in c:
        found["loss_after"] = _ratio(c["loss after"], c["loss"])
        found["loss_after_weighted"] = _ratio(raw * c["loss after"], raw * c["loss"])
        found["mismatch"] = _ratio(c["gap"], c["tokens"])
        found["flipped"] = _ratio(c["flipped"], c["either"])
    return {name: value for name, value in found.items() if value is not None}


def _ratio(part: np.ndarray, whole: np.ndarray) -> float | None:
    total = float(whole.sum())
    return float(part.sum()) / total if total else None
