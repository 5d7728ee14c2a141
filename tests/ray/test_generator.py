"""A generator on real vLLM: where it stops, what its seeds fix, and what becomes of responses when the weights change."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from actors.cluster.placement import actor_options
from actors.engines.generator import Generator, WriteRequest, Written
from actors.engines.specs import generator_spec
from actors.weight_sync.wire import pack_chunks, put
from renio_pipeline.data.prompts import Cursor
from renio_pipeline.models import info
from renio_pipeline.stages.seeds import sample_seed
from renio_pipeline.types import Prompt, Version
from tests.ray import conftest
from tests.ray.conftest import demo, kill, run

LONG = 64  # tokens


@pytest.fixture(scope="module")
def student(tmp_path_factory: Any) -> Path:
    """The embedded student, whose generation_config names the end of a step as a second stop token."""
    folder: Path = tmp_path_factory.mktemp("models") / "student"
    shutil.copytree(info.resolve("embedded:student"), folder)
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text())
    tokens = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    path.write_text(json.dumps(settings | {"eos_token_id": [settings["eos_token_id"], tokens[";"]]}))
    return folder


class Stepper(Generator):
    """A generator that can be stopped after so many steps."""

    async def hold_after(self, steps: int) -> None:
        """Return when that many have been made; no more are until an update has come and gone."""
        held: Future[None] = Future()

        def arm(engine: Any) -> None:
            step, left = engine.step, iter(range(steps - 1, -1, -1))

            def counted() -> Any:
                if next(left, None) == 0:
                    self._loop.hold().add_done_callback(lambda _: held.set_result(None))
                return step()

            engine.step = counted

        self._loop.call(arm)
        await asyncio.wrap_future(held)


@dataclass
class Bench:
    actor: Any
    student: Path
    prompts: list[Prompt]
    step_end: int  # the second stop token
    vocab_size: int


@pytest.fixture(scope="module")
def bench(ray_cluster: None, student: Path) -> Iterator[Bench]:
    config, prepared = demo(f"student={student}", f"max_response_tokens={LONG}", "in_flight=keep", "max_staleness=1")
    options = actor_options(config, "generator", uses_vllm=True)
    actor = ray.remote(Stepper).options(**options).remote(generator_spec(config, prepared))
    prompts = Cursor(prepared.prompt_ids, prepared.rows, config).take(24)
    yield Bench(actor, student, prompts, prepared.tokenizer.convert_tokens_to_ids(";"), prepared.vocab_size)
    kill([actor])


def write(bench: Bench, prompts: list[Prompt]) -> dict[int, Written]:
    return run(_write(bench, prompts, 12, 1.0))


async def _score(bench: Bench, sequences: list[list[int]]) -> list[np.ndarray]:
    found: list[np.ndarray] = await bench.actor.score.remote(sequences)
    return found


async def _write(
    bench: Bench, prompts: list[Prompt], max_tokens: int, temperature: float, options: dict[str, Any] | None = None
) -> dict[int, Written]:
    requests = [
        WriteRequest(
            sample_id=p.sample_id,
            prompt_ids=p.student_ids,
            seed=sample_seed(0, p.sample_id),
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=1.0,
            top_k=0,
            options=options or {},
        )
        for p in prompts
    ]
    return {w.sample_id: w for w in await conftest.write(bench.actor, requests)}


def test_a_response_stops_at_every_stop_id_of_the_generation_config(bench: Bench) -> None:
    responses = write(bench, bench.prompts).values()
    stopped = [r for r in responses if r.stop_reason == "stop"]
    assert len(stopped) > 12
    assert all(r.token_ids[-1] == bench.step_end and bench.step_end not in r.token_ids[:-1] for r in stopped)
    assert all(len(r.token_ids) == 12 for r in responses if r.stop_reason == "length")
    assert all(r.logprobs.shape == r.token_ids.shape and (r.logprobs <= 0).all() for r in responses)


def test_a_sample_is_the_same_whenever_it_is_written_and_in_whatever_company(bench: Bench) -> None:
    together, apart = write(bench, bench.prompts), write(bench, bench.prompts[20:] + bench.prompts[:7])
    assert all(np.array_equal(response.token_ids, together[i].token_ids) for i, response in apart.items())


def test_more_prompts_at_once_than_the_engine_reads_in_a_step(bench: Bench) -> None:
    long = [
        Prompt(sample_id=i, row=p.row, student_ids=np.resize(p.student_ids, 60), teacher_ids=p.teacher_ids)
        for i, p in enumerate(3 * bench.prompts)
    ]
    assert sum(len(p.student_ids) for p in long) > 2 * 2048  # of which one step would end amid a prompt
    together = write(bench, long)
    assert together.keys() == {p.sample_id for p in long}
    assert all(np.array_equal(response.token_ids, together[i].token_ids) for i, response in write(bench, long[-5:]).items())


def test_two_samples_of_one_prompt_have_seeds_of_their_own(bench: Bench) -> None:
    first = bench.prompts[0]
    twice = [
        Prompt(sample_id=1000 + i, row=first.row, student_ids=first.student_ids[:2], teacher_ids=first.teacher_ids)
        for i in range(8)
    ]
    assert len({sample_seed(0, p.sample_id) for p in twice}) == 8
    assert len({tuple(r.token_ids) for r in write(bench, twice).values()}) > 1


PENALTIES = {"presence_penalty": 1.5, "repetition_penalty": 1.3, "min_p": 0.01}


def test_penalties_change_what_is_written_and_not_the_log_probabilities_that_are_reported(bench: Bench) -> None:
    plain, penalised = (run(_write(bench, bench.prompts[:8], 24, 1.0, options)) for options in ({}, PENALTIES))
    assert any(plain[i].token_ids.tolist() != penalised[i].token_ids.tolist() for i in plain)
    for prompt in bench.prompts[:8]:
        written = penalised[prompt.sample_id]
        whole = [*prompt.student_ids.tolist(), *written.token_ids.tolist()]
        (scored,) = run(_score(bench, [whole]))
        np.testing.assert_allclose(written.logprobs, scored[len(prompt.student_ids) - 1 :], atol=1e-4)


def test_a_response_ends_with_a_stop_text_and_at_a_further_stop_token(bench: Bench) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bench.student)
    plain = run(_write(bench, bench.prompts[:8], 24, 1.0, {}))
    for written in plain.values():
        ids = written.token_ids.tolist()
        at = next(i for i in range(1, len(ids)) if ids[i] not in ids[:i])
        prompt = [p for p in bench.prompts if p.sample_id == written.sample_id]
        for options in ({"stop": [tokenizer.decode(ids[at : at + 1])]}, {"stop_token_ids": [ids[at]]}):
            (ended,) = run(_write(bench, prompt, 24, 1.0, options)).values()
            assert (ended.token_ids.tolist(), ended.stop_reason) == (ids[: at + 1], "stop")


def test_asleep_it_writes_nothing_and_awake_it_writes_the_same(bench: Bench) -> None:
    before = write(bench, bench.prompts[:4])
    ray.get(bench.actor.sleep.remote())
    with pytest.raises(RuntimeError, match="the engine sleeps: wake it up"):
        write(bench, bench.prompts[:4])
    ray.get(bench.actor.wake_up.remote())
    after = write(bench, bench.prompts[:4])
    assert all(np.array_equal(after[i].logprobs, response.logprobs) for i, response in before.items())


def test_a_response_under_way_goes_on_with_new_weights_on_its_whole_prefix(bench: Bench) -> None:
    """The last test of the module: it changes the weights."""
    new = moved(bench.student)

    async def go() -> dict[int, Written]:
        stopped = bench.actor.hold_after.remote(4)
        writing = asyncio.create_task(_write(bench, bench.prompts, LONG, 2.0))
        await stopped
        await bench.actor.start_weight_update.remote()
        held = await bench.actor.busy_seconds.remote()
        for chunk in pack_chunks(new.items(), 2**17):
            await bench.actor.update_weights.remote(put(chunk))
        await asyncio.sleep(0.2)
        assert await bench.actor.busy_seconds.remote() == held, "a step was made with half of the weights new"
        await bench.actor.finish_weight_update.remote(Version(0, 1))
        return await writing

    written = run(go())
    kept = [w for w in written.values() if w.last_version != w.version]
    assert kept, "no response was under way when the weights changed: the test proves nothing"
    assert {(w.version, w.last_version) for w in kept} == {(Version(0, 0), Version(0, 1))}
    prompts = {p.sample_id: p.student_ids for p in bench.prompts}
    for w in kept:
        by_old, by_new = (logprobs(bench, prompts[w.sample_id], w.token_ids, weights) for weights in ({}, new))
        assert np.abs(by_old - by_new).mean() > 0.05, "the new weights are the old ones: the comparison would prove nothing"
        change = int((np.abs(w.logprobs - by_old) < 1e-4).argmin())  # the first token that is not the old weights'
        assert 0 < change < len(w.token_ids)
        np.testing.assert_allclose(w.logprobs[:change], by_old[:change], atol=1e-4)
        np.testing.assert_allclose(w.logprobs[change:], by_new[change:], atol=1e-4)


def moved(student: Path) -> dict[str, torch.Tensor]:
    """The student's parameters, each a little elsewhere."""
    noise = torch.Generator().manual_seed(0)
    parameters = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32).named_parameters()
    return {name: p.detach() + 0.1 * torch.randn(p.shape, generator=noise) for name, p in parameters}


def logprobs(bench: Bench, prompt: np.ndarray, response: np.ndarray, weights: dict[str, torch.Tensor]) -> np.ndarray:
    """[T] of the response's tokens, by transformers, all with the same weights; the student's own where none are given."""
    model = AutoModelForCausalLM.from_pretrained(bench.student, dtype=torch.float32)
    model.load_state_dict(weights, strict=False)
    ids = torch.tensor([[*prompt.tolist(), *response.tolist()]])
    with torch.no_grad():
        table = torch.log_softmax(model(ids).logits[0, len(prompt) - 1 : -1, : bench.vocab_size], dim=-1)
    return table.gather(1, ids[0, len(prompt) :, None])[:, 0].numpy()
