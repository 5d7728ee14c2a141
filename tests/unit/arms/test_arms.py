"""Arms, the sequential test, and a race with the embedded models in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from rich.console import Console

from renio_pipeline.arms.arm import Arm, arms_of
from renio_pipeline.arms.cell import Answers, paired
from renio_pipeline.arms.race import from_disk, race
from renio_pipeline.arms.results import asked, begin, look_table, verdict, write
from renio_pipeline.arms.sequential import Look, look
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.in_process import in_process_stages
from renio_pipeline.metrics.sink import read_jsonl
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.run_dir.checkpoint_files import RunState
from renio_pipeline.stages.protocols import Stages
from tests.unit.conftest import values

UNIFORM, RENIO = ["uniform:", "weighting.type=uniform"], ["renio: weighting.type=renio"]


@pytest.fixture
def file(tmp_path: Path) -> str:
    small = {"batch_size": 8, "max_response_tokens": 48, "data": {"problems": 64}, "evaluate": {"problems": 12}}
    own = {"trainer": {"dtype": "float32", "lr": 5e-4}, "generator": {"dtype": "float32"}}
    teacher = {"teacher": {"model": "embedded:teacher", "dtype": "float32"}}
    path = tmp_path / "run.yaml"
    OmegaConf.save(OmegaConf.create(values(**small, **own, **teacher)), path)
    return str(path)


def test_an_arm_is_a_name_and_overrides_however_the_shell_split_them(file: str) -> None:
    one, two = arms_of([file], ["steps=3"], [UNIFORM, [*RENIO, "weighting.strength=0.5"]])
    assert (one.name, one.overrides, one.config.weighting.type, one.config.steps) == (
        "uniform", ("weighting.type=uniform",), "uniform", 3,
    )  # fmt: skip
    assert two.overrides == ("weighting.type=renio", "weighting.strength=0.5")
    assert arms_of([file], [], [["plain:"], RENIO])[0].overrides == ()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([UNIFORM], "--arm: 1 given; give at least two"),
        ([UNIFORM, UNIFORM], "--arm: two are named 'uniform'"),
        ([["weighting.type=uniform"], RENIO], "'weighting.type=uniform' is no arm; expected NAME: key=value"),
        ([UNIFORM, ["b/c: steps=1"]], "'b/c: steps=1' is no arm"),
        ([UNIFORM, ["b: batch_size=4"]], "uniform and b differ in batch_size, which arms share"),
        ([UNIFORM, ["b: teacher.model=embedded:student"]], "differ in teacher"),
        ([UNIFORM, ["b: objective.type=jsd"]], "need different payloads"),
        ([UNIFORM, ["b: weighting.type=unifrom"]], "weighting.type: 'unifrom' is not known"),
    ],
)
def test_what_is_no_arm_is_refused(file: str, given: list[list[str]], told: str) -> None:
    with pytest.raises(ConfigError, match=None) as refused:
        arms_of([file], [], given)
    assert told in str(refused.value)


def answered(rng: np.random.Generator, chance: float, problems: int = 300) -> Answers:
    return {str(i): bool(right) for i, right in enumerate(rng.random(problems) < chance)}


def test_differences_are_paired_by_problem_and_averaged_over_seeds() -> None:
    one = [{"a": True, "b": True, "c": False}, {"a": True, "b": False, "c": False}]
    other = [{"a": False, "b": True, "c": False, "d": True}, {"a": False, "b": True, "c": False}]
    assert paired(one, other).tolist() == [1.0, -0.5, 0.0]


def test_a_large_difference_is_clear_after_two_seeds_and_never_after_one() -> None:
    rng = np.random.default_rng(0)
    found = {"a": [answered(rng, 0.4) for _ in range(2)], "b": [answered(rng, 0.7) for _ in range(2)]}
    one = look({name: each[:1] for name, each in found.items()}, looks=2)
    two = look(found, looks=2)
    assert (one.leader, one.clear, one.winner) == ("b", False, None)
    assert (two.leader, two.clear, two.winner) == ("b", True, "b")
    assert two.accuracy["b"] > two.accuracy["a"]
    assert two.against[0].difference.low > 0.2


def test_an_arm_that_is_behind_in_one_seed_does_not_win() -> None:
    rng = np.random.default_rng(0)
    found = {"a": [answered(rng, 0.2), answered(rng, 0.6)], "b": [answered(rng, 0.9), answered(rng, 0.5)]}
    seen = look(found, looks=2)
    assert seen.leader == "b"
    assert seen.against[0].p_value < 1e-3
    assert not seen.clear


@pytest.mark.slow
def test_arms_that_are_alike_seldom_make_a_winner_however_often_one_looks() -> None:
    rng = np.random.default_rng(0)
    wins = 0
    for _ in range(60):
        found: dict[str, list[Answers]] = {name: [] for name in "abc"}
        for _ in range(4):
            for each in found.values():
                each.append(answered(rng, 0.5, 12))
            if look(found, looks=4).clear:
                wins += 1
                break
    assert wins <= 6


def test_what_is_shown_names_the_winner_and_its_overrides(file: str) -> None:
    arms = arms_of([file], [], [UNIFORM, RENIO])
    rng = np.random.default_rng(0)
    seen = look({"uniform": [answered(rng, 0.8)] * 2, "renio": [answered(rng, 0.4)] * 2}, looks=3)
    console = Console(width=160, file=StringIO(), record=True)
    console.print(look_table(seen))
    assert "uniform ahead by, points" in console.export_text()
    assert next(verdict(seen, arms, 3)) == "uniform is clearly ahead, in each of 2 seeds: weighting.type=uniform"
    even = replace(seen, clear=False)
    assert next(verdict(even, arms, 3)) == "no arm is clearly ahead after 2 of 3 seeds; uniform leads"


def test_a_folder_of_another_race_is_refused_and_its_own_is_gone_on_with(file: str, tmp_path: Path) -> None:
    mine = asked(arms_of([file], [], [UNIFORM, RENIO]), 5)
    begin(tmp_path / "race", mine)
    begin(tmp_path / "race", mine)
    with pytest.raises(ConfigError, match="has a race with other steps; give another folder"):
        begin(tmp_path / "race", mine | {"steps": 6})
    with pytest.raises(ConfigError, match="is not empty, and not a race's folder"):
        begin(tmp_path, mine)


@pytest.mark.slow
def test_a_race_pairs_its_runs_and_goes_on_where_it_was_interrupted(file: str, tmp_path: Path) -> None:
    """Twins differ in name alone, so their runs must be equal; the third arm learns nothing, as its learning rate is zero."""
    arms = arms_of([file], [], [["one:"], ["two:"], ["still: trainer.lr=1e-12"]])
    prepared = prepare(arms[0].config)
    opened: list[tuple[str, int]] = []

    @asynccontextmanager
    async def stages(config: RunConfig, start: RunState) -> AsyncIterator[Stages]:
        opened.append((config.directory.name, config.seed))
        yield in_process_stages(config, prepared)

    class Quiet:
        def note(self, text: str) -> None: ...
        def step(self, step: int, metrics: dict[str, float]) -> None: ...
        def evaluation(self, step: int, result: Any) -> None: ...

    async def go(seeds: int) -> list[Look]:
        return [seen async for seen in race(stages, arms, prepared, tmp_path / "race", seeds=seeds, steps=2, progress=Quiet())]

    first = asyncio.run(go(1))
    assert opened == [("one", 0), ("two", 0), ("still", 0)]
    assert first[0].accuracy["one"] == first[0].accuracy["two"]
    (tmp_path / "race/seed-0/two/held_out.json").unlink()  # as if the race had ended there
    opened.clear()
    assert from_disk(arms, tmp_path / "race", seeds=2) is None
    both = asyncio.run(go(2))
    assert from_disk(arms, tmp_path / "race", seeds=2) == both
    assert opened == [("two", 0), ("one", 1), ("two", 1), ("still", 1)]
    assert both[0] == first[0]
    first_step = {
        (seed, arm.name): [line["token_ids"] for line in read_jsonl(folder / "samples/step_000001.jsonl")]
        for seed in (0, 1)
        for arm in arms
        if (folder := tmp_path / f"race/seed-{seed}" / arm.name)
    }
    assert first_step[0, "one"] == first_step[0, "two"] == first_step[0, "still"], "the responses are the student's own"
    assert first_step[0, "one"] != first_step[1, "one"]
    write(tmp_path / "race", asked(arms, 2), both)
    assert isinstance(prepared, Prepared)
    assert isinstance(arms[0], Arm)
