"""From which responses a teacher goes on, and from where."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from renio_pipeline.config.schema import Pivotal
from renio_pipeline.grading.grader import Judged
from renio_pipeline.probe.continuations import Asking, Begun, go_on
from renio_pipeline.probe.responses import Response
from renio_pipeline.probe.selection import HEAVIEST, OTHERS, RIGHT, choose
from renio_pipeline.types import Continuation, ContinuationRequest, Prompt, Rollout, Row, Verdict

ASKING = Asking(each=2, temperature=1.0, max_tokens=8, context=11, seed=0)


def prompt(sample_id: int) -> Prompt:
    return Prompt(
        sample_id=sample_id,
        row=Row(id=str(sample_id), problem="p"),
        student_ids=np.arange(3, dtype=np.int32),
        teacher_ids=np.arange(4, dtype=np.int32),
    )


def response(sample_id: int, verdict: Verdict | None, *ratios: float) -> Response:
    """A response with these log-ratios."""
    return Response(
        prompt=prompt(sample_id),
        token_ids=np.arange(len(ratios), dtype=np.int32),
        stop_reason="stop",
        verdict=verdict,
        generator=np.zeros(len(ratios), np.float32),
        teacher=-np.array(ratios, np.float32),
        pivotal=Pivotal(threshold=0.5, clip=2.0),
    )


def ids(found: Sequence[Response]) -> list[int]:
    return [r.prompt.sample_id for r in found]


def test_the_heaviest_wrong_ones_come_first_and_the_others_are_drawn_from_the_rest() -> None:
    wrong = [response(i, "incorrect", 0.0, 0.6 + 0.1 * i) for i in range(10)]
    cut = response(20, "unfinished", 9.0)  # clipped: the heaviest of all
    right = [response(30 + i, "correct", 0.7, 0.0) for i in range(3)]
    silent = [response(40, "incorrect", 0.0, 0.4), response(41, None, 1.0), response(42, "correct", 0.1)]
    found = choose([*wrong, *right, *silent, cut], 3, seed=1)
    assert ids(found[HEAVIEST]) == [20, 9, 8]
    assert set(ids(found[OTHERS])) < set(range(8))
    assert len(set(ids(found[OTHERS]))) == 3
    assert ids(found[RIGHT]) == [30, 31, 32]
    assert ids(choose([*wrong, cut], 3, seed=1)[OTHERS]) == ids(found[OTHERS])


def test_with_few_wrong_ones_all_are_the_heaviest() -> None:
    found = choose([response(i, "incorrect", 1.0) for i in range(2)], 5, seed=0)
    assert (ids(found[HEAVIEST]), found[OTHERS], found[RIGHT]) == ([0, 1], [], [])


def test_what_comes_after_the_first_pivotal_token_leaves_it_out_itself() -> None:
    found = response(0, "incorrect", 0.1, 0.9, 0.0, 1.2)
    assert (found.first, found.after.tolist()) == (1, [False, False, True, True])
    none = response(0, "incorrect", 0.1, 0.2)
    assert (none.first, none.after.tolist(), none.raw) == (None, [False, False], 1.0)


class Writers:
    """Teachers that write 7 and remember what they were asked."""

    def __init__(self) -> None:
        self.asked: list[ContinuationRequest] = []

    async def write(self, requests: Sequence[ContinuationRequest]) -> list[list[Continuation]]:
        self.asked += requests
        seven = Continuation(token_ids=np.array([7], np.int32), stop_reason="stop")
        return [[seven] * r.n for r in requests]


async def judge(rollout: Rollout) -> Judged:
    verdict: Verdict = "unfinished" if rollout.stop_reason == "length" else "correct"
    return Judged(rollout=rollout, text=" ".join(map(str, rollout.token_ids)), verdict=verdict)


def test_a_teacher_goes_on_after_its_own_prompt_within_its_context() -> None:
    """The second response has ended, the third leaves no room: neither is asked about."""
    writers = Writers()
    begun = [
        Begun(prompt=prompt(0), ids=np.array([1, 2], np.int32)),
        Begun(prompt=prompt(1), ids=np.array([3], np.int32), ended=True),
        Begun(prompt=prompt(2), ids=np.arange(7, dtype=np.int32)),
        Begun(prompt=prompt(3), ids=np.arange(4, dtype=np.int32)),
    ]
    found = asyncio.run(go_on(writers, judge, begun, ASKING, "maths"))  # type: ignore[arg-type]
    assert [[j.text for j in each] for each in found] == [["1 2 7"] * 2, ["3"], ["0 1 2 3 4 5 6"], ["0 1 2 3 7"] * 2]
    assert [each[0].verdict for each in found] == ["correct", "correct", "unfinished", "correct"]
    assert [r.prompt_ids.tolist() for r in writers.asked] == [[0, 1, 2, 3, 1, 2], [0, 1, 2, 3, 0, 1, 2, 3]]
    assert [(r.max_tokens, r.n, r.teacher) for r in writers.asked] == [(5, 2, "maths"), (3, 2, "maths")]
    assert len({r.seed for r in writers.asked}) == 2
