"""A generator on real vLLM: where it stops, and what its seeds fix."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import launch
from actors.pool import GeneratorPool, sample_seed
from renio_pipeline import models
from renio_pipeline.prompts import Cursor
from renio_pipeline.types import Prompt, Rollout
from tests.ray.conftest import demo, kill, run


@pytest.fixture(scope="module")
def student(tmp_path_factory: Any) -> Path:
    """The embedded student, whose generation_config names the end of a step as a second stop token."""
    folder: Path = tmp_path_factory.mktemp("models") / "student"
    shutil.copytree(models.resolve("embedded:student"), folder)
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text())
    tokens = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    path.write_text(json.dumps(settings | {"eos_token_id": [settings["eos_token_id"], tokens[";"]]}))
    return folder


@pytest.fixture(scope="module")
def pool(ray_cluster: None, student: Path) -> Iterator[tuple[GeneratorPool, list[Prompt], int]]:
    config, prepared = demo(f"student={student}", "max_response_tokens=12")
    made = launch.start_generators(config, prepared)
    prompts = Cursor(prepared.prompt_ids, prepared.rows, config).take(24)
    yield made, prompts, prepared.tokenizer.convert_tokens_to_ids(";")
    kill(made.replicas)


def write(pool: GeneratorPool, prompts: list[Prompt]) -> dict[int, Rollout]:
    async def go() -> list[Rollout]:
        return [r async for r in pool.generate(prompts, 1.0)]

    return {r.sample_id: r for r in run(go())}


def test_a_response_stops_at_every_stop_id_of_the_generation_config(pool: Any) -> None:
    rollouts = write(pool[0], pool[1]).values()
    stopped = [r for r in rollouts if r.stop_reason == "stop"]
    assert len(stopped) > 12
    assert all(r.token_ids[-1] == pool[2] and pool[2] not in r.token_ids[:-1] for r in stopped)
    assert all(len(r.token_ids) == 12 for r in rollouts if r.stop_reason == "length")
    assert all(r.logprobs.shape == r.token_ids.shape and (r.logprobs <= 0).all() for r in rollouts)


def test_a_sample_is_the_same_whenever_it_is_written_and_in_whatever_company(pool: Any) -> None:
    generators, prompts, _ = pool
    together, apart = write(generators, prompts), write(generators, prompts[20:] + prompts[:7])
    assert all(np.array_equal(rollout.token_ids, together[i].token_ids) for i, rollout in apart.items())


def test_two_samples_of_one_prompt_have_seeds_of_their_own(pool: Any) -> None:
    generators, prompts, _ = pool
    twice = [
        Prompt(
            sample_id=1000 + i, row=prompts[0].row, student_ids=prompts[0].student_ids[:2], teacher_ids=prompts[0].teacher_ids
        )
        for i in range(8)
    ]
    assert len({sample_seed(0, p.sample_id) for p in twice}) == 8
    assert len({tuple(r.token_ids) for r in write(generators, twice).values()}) > 1
