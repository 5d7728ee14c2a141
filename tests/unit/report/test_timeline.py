"""Where a step's time went: against a step of known delays, and for every line of metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renio_pipeline.metrics.step_metrics import step_metrics
from renio_pipeline.preflight import Prepared
from renio_pipeline.report.timeline import bars, spent
from renio_pipeline.types import Prompt, Rollout
from tests.fakes.stages import FakeGenerators, config_of, prepared, stages_of, step_of
from tests.unit.recorded_runs import line

__all__ = ["prepared"]
SECONDS = st.floats(0, 100, allow_subnormal=False)


def test_the_stages_of_a_step_stand_where_it_spent_its_time() -> None:
    when = bars(line(1))
    assert when == {
        "generate": [(0.0, 6.0)],
        "score": [(2.0, 7.0)],
        "weigh": [(7.0, 7.5)],
        "train": [(7.5, 9.5)],
        "sync": [(9.5, 10.0)],
    }
    assert spent(line(1)) == {
        "generate": 6.0,
        "score": 1.0,
        "turns": 0.0,
        "weigh": 0.5,
        "train": 2.0,
        "sync": 0.5,
        "other": 0.0,
    }


def test_what_was_written_ahead_of_the_step_begins_before_it_and_is_not_waited_for() -> None:
    ahead = line(1, time__start=-8.0, time__step=4.0)
    assert bars(ahead)["generate"] == [(-8.0, -2.0)]
    assert bars(ahead)["score"] == [(-6.0, -1.0)]
    assert spent(ahead)["generate"] == spent(ahead)["score"] == 0.0
    assert spent(ahead)["other"] == pytest.approx(1.0)


def test_handing_over_the_gpus_stands_before_weighing_and_after_training() -> None:
    when = bars(line(1, time__turns=1.5, time__turn_back=0.5))
    assert when["turns"] == [(5.5, 6.5), (9.0, 9.5)]
    assert (when["weigh"], when["train"]) == ([(6.5, 7.0)], [(7.0, 9.0)])


def test_a_skipped_step_shows_what_was_written_and_nothing_that_was_trained() -> None:
    skipped = {
        "step": 1,
        "time/start": 0.0,
        "time/first_response": 1.0,
        "time/generate": 2.0,
        "time/score": 1.0,
        "time/step": 3.0,
    }
    assert bars(skipped) == {"generate": [(0.0, 2.0)], "score": [(1.0, 2.0)]}
    assert spent(skipped)["other"] == 1.0


@given(first=SECONDS, writing=SECONDS, scoring=SECONDS, learning=st.tuples(*[SECONDS] * 5), more=SECONDS)
def test_what_a_step_waited_for_adds_up_to_the_step(
    first: float, writing: float, scoring: float, learning: Sequence[float], more: float
) -> None:
    before, weigh, train, after, sync = learning
    scored = max(first + writing, first + scoring)
    step = scored + sum(learning) + more
    times = line(
        1,
        time__first_response=first,
        time__generate=first + writing,
        time__score=scored - first,
        time__weigh=weigh,
        time__train=train,
        time__sync=sync,
        time__turns=before + after,
        time__turn_back=after,
        time__step=step,
    )
    found, when = spent(times), bars(times)
    assert min(found.values()) >= 0
    assert sum(found.values()) == pytest.approx(step)
    assert found["other"] == pytest.approx(more, abs=1e-6)
    ends = [when[stage][0] for stage in ("weigh", "train", "sync")]
    assert all(later[0] >= earlier[1] - 1e-9 for earlier, later in pairwise(ends))
    assert ends[-1][1] == step


def test_a_steps_metrics_say_when_its_first_response_came_and_its_timeline_keeps_to_the_step(prepared: Prepared) -> None:
    class SlowFakeGenerators(FakeGenerators):
        async def generate(self, prompts: Sequence[Prompt], temperature: float) -> AsyncIterator[Rollout]:
            await asyncio.sleep(0.05)
            async for rollout in super().generate(prompts, temperature):
                yield rollout
                await asyncio.sleep(0.02)

    stages = stages_of(prepared, config_of())
    stages.generators = SlowFakeGenerators(prepared.tokenizer)
    metrics = step_metrics(asyncio.run(step_of(prepared, config_of(), stages)), {"generator": 1, "teacher": 2}, {})
    when = bars(metrics)
    assert 0 <= metrics["time/start"] < 0.04
    assert 0.05 <= metrics["time/first_response"] < metrics["time/generate"] - 0.08  # five more, 0.02 s each
    assert when["score"][0][0] < when["generate"][0][1] <= when["score"][0][1] <= when["weigh"][0][0] + 0.01
    assert sum(spent(metrics).values()) == pytest.approx(metrics["time/step"], abs=0.005)
