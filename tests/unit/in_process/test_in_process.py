"""The stages without engines: what they sample, what they refuse, and that a step of them trains."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.data.prompts import Cursor
from renio_pipeline.grading.grader import Grader
from renio_pipeline.in_process import check, in_process_stages
from renio_pipeline.in_process.generators import InProcessGenerators
from renio_pipeline.loop.probing import Probing
from renio_pipeline.loop.selection import Selection
from renio_pipeline.loop.step import train_step
from renio_pipeline.models import info
from renio_pipeline.models.writing import inverse_cdf
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.stages.outcomes import StepResult
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.types import FIRST_VERSION, Prompt, Rollout, Version
from tests.unit.conftest import make_config

FLOAT32 = {"generator": {"dtype": "float32"}, "trainer": {"dtype": "float32", "lr": 5e-4, "max_grad_norm": 1.0}}
TEACHER = {"model": "embedded:teacher", "dtype": "float32", "type": "torch"}
TEMPERATURE = 1.3


def configured(**changes: Any) -> RunConfig:
    small = {
        "steps": 4,
        "batch_size": 16,
        "max_response_tokens": 48,
        "data": {"problems": 128},
        "evaluate": {"problems": 8},
        "objective": {"type": "jsd"},
        "teacher": TEACHER,
    }
    return make_config(**small | FLOAT32 | changes)


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(configured())


@pytest.fixture(scope="module")
def stages(prepared: Prepared) -> Stages:
    return in_process_stages(configured(temperature=TEMPERATURE), prepared)


def prompts_of(prepared: Prepared, count: int, start: int = 0) -> list[Prompt]:
    return Cursor(prepared.prompt_ids, prepared.rows, configured(), start).take(count)


def written(generators: Any, prompts: Sequence[Prompt], temperature: float = 1.0) -> list[Rollout]:
    async def all_of() -> list[Rollout]:
        return [r async for r in generators.generate(prompts, temperature)]

    return asyncio.run(all_of())


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=8).filter(lambda p: sum(p) > 0.01),
    st.floats(0, 1, exclude_max=True, width=32),
)
@settings(deadline=None, derandomize=True)
def test_a_token_without_probability_is_never_drawn(weights: list[float], chance: float) -> None:
    probabilities = torch.tensor(weights) / sum(weights)
    token = int(inverse_cdf(probabilities[None], torch.tensor([chance])))
    assert probabilities[token] > 0


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    probabilities = torch.tensor([0.1, 0.0, 0.6, 0.3])
    grid = (torch.arange(1000) + 0.5) / 1000
    tokens = inverse_cdf(probabilities.expand(1000, 4), grid)
    assert torch.bincount(tokens, minlength=4).tolist() == [100, 0, 600, 300]


def test_log_probabilities_are_those_of_a_whole_forward_pass_at_the_distillation_temperature(
    stages: Stages, prepared: Prepared
) -> None:
    """Rows are padded on the left, cached, and left out when they end: none of it may show."""
    rollouts = written(stages.generators, prompts_of(prepared, 12))
    assert len({len(r.token_ids) for r in rollouts}) > 2
    lm = stages.trainers.model.lm  # type: ignore[attr-defined]
    for r in rollouts:
        ids = torch.tensor(np.concatenate([r.prompt.student_ids, r.token_ids])).long()[None]
        with torch.no_grad():
            logits = lm(ids).logits[0, len(r.prompt.student_ids) - 1 : -1, : prepared.vocab_size]
        expected = torch.log_softmax(logits / TEMPERATURE, -1).gather(1, ids[0, len(r.prompt.student_ids) :, None])[:, 0]
        np.testing.assert_allclose(r.logprobs, expected.numpy(), atol=2e-5)


def test_a_sample_is_the_same_alone_and_among_others(stages: Stages, prepared: Prepared) -> None:
    prompts = prompts_of(prepared, 6)
    together = {r.sample_id: r for r in written(stages.generators, prompts)}
    for prompt in prompts:
        (alone,) = written(stages.generators, [prompt])
        np.testing.assert_array_equal(alone.token_ids, together[prompt.sample_id].token_ids)


def test_another_sample_of_the_same_problem_meets_another_chance(stages: Stages, prepared: Prepared) -> None:
    prompt = prompts_of(prepared, 1)[0]
    responses = written(stages.generators, [replace(prompt, sample_id=i) for i in range(12)], 1.3)
    assert len({r.token_ids.tobytes() for r in responses}) > 3
    held_out = written(stages.generators, [replace(prompt, sample_id=-i) for i in range(1, 12)], 1.3)
    assert [r.token_ids.tobytes() for r in responses[1:]] != [r.token_ids.tobytes() for r in held_out]


@pytest.mark.slow
def test_a_teacher_that_reasons_first_scores_after_its_own_text_and_repeats_it() -> None:
    config = configured(
        method={"type": "opd", "privileged": True, "reason_first": {"max_tokens": 12, "temperature": 1.5}},
        prompts={"reasoning": "{solution};{problem}?", "teacher": "{solution};<{reasoning}>;{problem}"},
    )
    prepared = prepare(config)
    assert prepared.analyses is not None

    async def scored() -> list[Any]:
        stages = in_process_stages(config, prepared)
        prompts = Cursor(prepared.prompt_ids, prepared.rows, config, teacher_ids=prepared.teacher_ids).take(4)
        return await stages.teachers.score(stages.generators.generate(prompts, 1.0), 1)

    first, second = asyncio.run(scored()), asyncio.run(scored())
    inside = [prepared.tokenizer.decode(s.rollout.prompt.teacher_ids).partition("<")[2].partition(">")[0] for s in first]
    assert len(set(inside)) > 1
    assert "[the teacher's analysis]" not in inside
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.rollout.prompt.teacher_ids, two.rollout.prompt.teacher_ids)
        np.testing.assert_array_equal(one.scores.logprobs, two.scores.logprobs)


def test_a_response_ends_with_its_end_token_or_was_cut(stages: Stages, prepared: Prepared) -> None:
    end = prepared.tokenizer.eos_token_id
    generators = stages.generators
    assert isinstance(generators, InProcessGenerators)
    for most in (10, 30, 48):
        for r in written(generators.longer(most), prompts_of(prepared, 12)):
            assert len(r.token_ids) <= most
            assert (r.token_ids == end).sum() == (r.stop_reason == "stop")
            assert (r.token_ids[-1] == end) if r.stop_reason == "stop" else len(r.token_ids) == most


def test_a_shorter_response_is_the_beginning_of_the_longer_one(stages: Stages, prepared: Prepared) -> None:
    assert isinstance(stages.generators, InProcessGenerators)
    prompts = prompts_of(prepared, 6)
    short, whole = (written(stages.generators.longer(n), prompts) for n in (10, 48))
    for s, w in zip(short, whole, strict=True):
        np.testing.assert_array_equal(s.token_ids, w.token_ids[: len(s.token_ids)])


def test_what_was_written_ahead_is_what_would_have_been_written(prepared: Prepared) -> None:
    config = configured()
    plain, ahead = (in_process_stages(config, prepared).generators for _ in range(2))
    assert isinstance(ahead, InProcessGenerators)
    ahead.expect(lambda: prompts_of(prepared, 8, start=4))
    for start, count in ((0, 4), (4, 3), (7, 5)):
        asked = prompts_of(prepared, count, start)
        for one, other in zip(written(plain, asked), written(ahead, asked), strict=True):
            assert one.sample_id == other.sample_id
            np.testing.assert_array_equal(one.token_ids, other.token_ids)


def test_nothing_written_by_older_weights_outlives_them(prepared: Prepared) -> None:
    generators = in_process_stages(configured(), prepared).generators
    assert isinstance(generators, InProcessGenerators)
    generators.expect(lambda: prompts_of(prepared, 8, start=2))
    written(generators, prompts_of(prepared, 2))
    generators.follow(Version(0, 1))
    assert {r.version for r in written(generators, prompts_of(prepared, 4, start=2))} == {Version(0, 1)}


async def trained(config: RunConfig, prepared: Prepared) -> tuple[Stages, list[StepResult]]:
    stages = in_process_stages(config, prepared)
    cursor = Cursor(prepared.prompt_ids, prepared.rows, config, teacher_ids=prepared.teacher_ids)
    version, results = FIRST_VERSION, []
    async with Grader(prepared.task, prepared.tokenizer) as grader:
        probing = Probing(config, stages, grader.judge, context=prepared.context)
        for step in range(1, config.steps + 1):
            selection = Selection(config, cursor.take, grader.judge)
            result = await train_step(stages, config, selection, step, version, probing)
            assert isinstance(result, StepResult)
            version = result.publication.version
            results.append(result)
        await probing.cancel()
    return stages, results


def test_steps_lower_the_divergence_and_repeat_digit_for_digit(prepared: Prepared) -> None:
    config = configured(steps=6, weighting={"type": "uniform"})
    _, one = asyncio.run(trained(config, prepared))
    _, other = asyncio.run(trained(config, prepared))
    assert [r.report.loss for r in one] == [r.report.loss for r in other]
    assert np.mean([r.report.divergence for r in one[-2:]]) < 0.8 * np.mean([r.report.divergence for r in one[:2]])
    assert [r.publication.version.number for r in one] == [1, 2, 3, 4, 5, 6]
    assert max(r.report.mismatch_max for r in one) < 1e-4


@pytest.mark.slow
def test_the_adaptive_weighting_starts_as_uniform_and_learns_that_this_teacher_does_not_recover(prepared: Prepared) -> None:
    keys = {"type": "adaptive", "every": 1, "prefixes": 12, "probes": 2, "share": 2.0, "move": 0.5, "suffix_from": 0.6}
    config = configured(steps=5, weighting=keys)
    _, plain = asyncio.run(trained(configured(steps=5, weighting={"type": "uniform"}), prepared))
    _, one = asyncio.run(trained(config, prepared))
    _, other = asyncio.run(trained(config, prepared))
    assert [r.report.loss for r in one] == [r.report.loss for r in other]
    assert [r.weighed.state for r in one] == [r.weighed.state for r in other]
    assert [r.report.loss for r in one[:2]] == [r.report.loss for r in plain[:2]]
    assert one[4].report.loss != plain[4].report.loss
    factors = [r.weighed.metrics["adaptive/after_pivotal"] for r in one]
    assert factors == sorted(factors, reverse=True)
    assert (factors[0], factors[-1]) == (1.0, 0.0)
    assert {r.weighed.metrics["adaptive/strength"] for r in one} == {0.0}
    assert one[-1].weighed.metrics["adaptive/recovery"] < 0.2
    assert 0 < one[-1].weighed.metrics["adaptive/share"] <= 2.0


@pytest.mark.slow
def test_leaving_out_what_comes_after_pivotal_tokens_takes_their_share_of_the_loss(prepared: Prepared) -> None:
    found = []
    for gamma in (1.0, 0.0):
        weighting = {"type": "uniform", "after_pivotal": gamma}
        _, (result,) = asyncio.run(trained(configured(steps=1, weighting=weighting), prepared))
        found.append(result.report)
    plain, without = found
    assert plain.loss_after_pivotal == without.loss_after_pivotal
    assert plain.loss_after_pivotal is not None
    assert 0.1 < plain.loss_after_pivotal < 1
    assert without.loss == pytest.approx(plain.loss * (1 - plain.loss_after_pivotal), rel=1e-5)
    assert without.grad_norm < plain.grad_norm
    assert without.divergence == plain.divergence


def test_the_rate_falls_and_the_gradient_is_clipped(prepared: Prepared) -> None:
    """With a bound far below the gradient's norm the first update of plain AdamW is the same: only the report tells."""
    config = configured(steps=2, trainer={"dtype": "float32", "lr": 1e-3, "max_grad_norm": 1e-6})
    stages, results = asyncio.run(trained(config, prepared))
    assert [r.report.lr for r in results] == [1e-3, 5e-4]
    assert all(r.report.grad_norm > 1e-3 for r in results)
    first = next(iter(stages.trainers._optimizer.state.values()))  # type: ignore[attr-defined]
    assert first["exp_avg_sq"].sum() < 1e-12  # of gradients that were cut to 1e-6


def test_a_teacher_that_is_shown_the_solution_reads_its_own_prompt() -> None:
    config = configured(method={"type": "opsd"}, teacher={"dtype": "float32", "type": "torch"}, steps=1)
    _, results = asyncio.run(trained(config, prepare(config)))
    for s in results[0].scored:
        assert len(s.rollout.prompt.teacher_ids) > len(s.rollout.prompt.student_ids)
        assert np.abs(s.scores.logprobs - s.rollout.logprobs).max() > 1e-3  # the same weights, another prompt


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"trainer": {"dtype": "bfloat16"}}, "trainer.dtype"),
        ({"teacher": TEACHER | {"dtype": "bfloat16"}}, "teacher.dtype"),
        ({"trainer": {"dtype": "float32", "lora": {"r": 4}}}, "trainer.lora"),
        ({"max_staleness": 1}, "max_staleness"),
        ({"sampling": {"top_k": 5}}, "sampling"),
        ({"method": {"type": "opsd", "teacher": "latest"}, "teacher": {"dtype": "float32", "type": "torch"}}, "method.teacher"),
    ],
)
def test_what_these_stages_cannot_do_is_refused_by_its_key(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        check(configured(**changes))
    check(configured())


@pytest.mark.parametrize("objective", ["jsd", "top_k_forward_kl", "sampled"])
def test_a_step_towards_a_mixture_weighs_its_samples_by_the_mixtures_log_probabilities(objective: str) -> None:
    """The second teacher is the student itself, so that half of each mixture is known."""
    teachers = {"clean": TEACHER, "itself": TEACHER | {"model": "embedded:student"}}
    settings = {"objective": {"type": objective}, "steps": 1}
    both = configured(teacher={}, teachers=teachers, combine={"clean": 1, "itself": 1}, **settings)
    _, (mixed,) = asyncio.run(trained(both, prepare(both)))
    alone = configured(**settings)
    _, (one,) = asyncio.run(trained(alone, prepare(alone)))
    assert [s.rollout.token_ids.tolist() for s in mixed.scored] == [s.rollout.token_ids.tolist() for s in one.scored]
    for found, clean in zip(mixed.scored, one.scored, strict=True):
        halves = [0.5 * np.exp(lp.astype(np.float64)) for lp in (clean.scores.logprobs, clean.rollout.logprobs)]
        np.testing.assert_allclose(found.scores.logprobs, np.log(sum(halves)), rtol=1e-4, atol=1e-4)
    assert mixed.weighed.weights.tolist() != one.weighed.weights.tolist()
    if objective != "sampled":  # whose value means nothing
        assert 0 < mixed.report.divergence < one.report.divergence


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "objective"), [("solution", {"type": "jsd"}), ("teacher", {"type": "top_k_forward_kl", "k": 8})]
)
def test_an_off_policy_part_is_trained_on_with_the_trainers_log_probabilities(
    source: str, objective: dict[str, Any], prepared: Prepared
) -> None:
    data = {"problems": 128, "off_policy": {"share": 0.5, "source": source}}
    config = configured(data=data, objective=objective, diagnostics={"share": 1.0})
    found = prepare(config)

    async def step(made: Stages) -> StepResult:
        async with Grader(found.task, found.tokenizer) as grader:
            cursor = Cursor(found.prompt_ids, found.rows, config)
            result = await train_step(made, config, Selection(config, cursor.take, grader.judge), 1, FIRST_VERSION)
        assert isinstance(result, StepResult)
        return result

    made = in_process_stages(config, found)
    lm = AutoModelForCausalLM.from_pretrained(info.resolve("embedded:student"), dtype=torch.float32)  # not trained
    result = asyncio.run(step(made))
    foreign = [s.rollout for s in result.scored if s.rollout.off_policy == source]
    assert len(foreign) == 8
    for r in foreign:
        ids = torch.tensor(np.concatenate([r.prompt.student_ids, r.token_ids])).long()[None]
        with torch.no_grad():
            logits = lm(ids).logits[0, len(r.prompt.student_ids) - 1 : -1, : found.vocab_size]
        expected = torch.log_softmax(logits, -1).gather(1, ids[0, len(r.prompt.student_ids) :, None])[:, 0]
        np.testing.assert_allclose(r.logprobs, expected.numpy(), atol=2e-5)
    assert result.report.mismatch_max < 1e-4
    assert np.isfinite(result.report.loss)
    assert len(result.report.agreement) == 5
    again = asyncio.run(step(in_process_stages(config, found)))
    assert again.report.loss == result.report.loss, "the same samples, and the same texts"
    assert [s.rollout.token_ids.tolist() for s in again.scored] == [s.rollout.token_ids.tolist() for s in result.scored]
