"""A teacher that two real vLLM servers have: its numbers, and a run in which one is killed and the other falls silent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from actors.engines.http_teacher import served_spec
from renio_pipeline.ledger import prove_exactly_once
from renio_pipeline.models import info
from renio_pipeline.models.teacher import Scorer
from renio_pipeline.served.client import Servers, check_servers
from renio_pipeline.types import ContinuationRequest, ScoreRequest, ScorerSpec, TopK
from tests.ray import runs
from tests.ray.conftest import demo
from tests.ray.ports import free_port
from tests.ray.running_cluster import wait_until

KEY = "sk-" + "of-the-served-teacher-0123"
START_SECONDS, MOST_SECONDS = 300.0, 240.0
STEPS = 12
K = 8
ENGINE = (
    "--dtype float32 --enforce-eager --max-model-len 128 --max-num-seqs 64 --kv-cache-memory-bytes 100000000 --host 127.0.0.1 "
    "--served-model-name the-teacher --disable-log-stats --disable-uvicorn-access-log"
)
ENVIRONMENT = {
    "VLLM_API_KEY": KEY, "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1", "CUDA_VISIBLE_DEVICES": "",
}  # fmt: skip


@dataclass
class Server:
    """A server, its engine's process and what they log."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def send(self, what: signal.Signals) -> None:
        """To all of its processes."""
        os.killpg(self.process.pid, what)

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def start(folder: Path) -> Server:
    """The command ``vllm serve`` asks for metadata of a distribution vllm, which the one for CPUs does not have."""
    port = free_port()
    log = folder / f"{port}.log"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", info.resolve("embedded:teacher")]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, *ENGINE.split(), "--port", str(port)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | ENVIRONMENT,
            start_new_session=True,
        )
    return Server(process, f"http://127.0.0.1:{port}", log)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two, started beside each other."""
    folder = tmp_path_factory.mktemp("servers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEACHER_KEY", KEY)
        made = [start(folder) for _ in range(2)]
        try:
            assert wait_until(lambda: all(server.ready() for server in made), START_SECONDS)
            yield made
        finally:
            for server in made:
                if server.process.poll() is None:
                    server.send(signal.SIGKILL)
                server.process.wait()


def overrides(servers: list[Server], *more: str) -> list[str]:
    urls = ", ".join(server.url for server in servers)
    keys = (f"urls=[{urls}]", "type=http", "served_model=the-teacher", "key_env=TEACHER_KEY", "timeout=8")
    return [*(f"teacher.{key}" for key in keys), f"objective.k={K}", *more]


@pytest.mark.parametrize("api", ["vllm", "openai"])
def test_the_numbers_are_those_of_a_teacher_in_a_pool_of_the_run(servers: list[Server], api: str) -> None:
    config, prepared = demo(*overrides(servers, f"teacher.api={api}"))
    ids = [prepared.tokenizer(row.solution, add_special_tokens=False)["input_ids"] for row in prepared.rows[:24]]
    requests = [
        ScoreRequest(sample_id=i, prompt_ids=prepared.prompt_ids[i], response_ids=np.asarray(own, np.int32))
        for i, own in enumerate(ids)
    ]
    spec = served_spec(config, prepared)

    async def ask() -> list[TopK]:
        assert await check_servers(spec) == []
        client = Servers(spec)
        await client.open()
        try:
            return await asyncio.gather(*map(client.score, requests))
        finally:
            await client.close()

    own = ScorerSpec(
        model=info.resolve("embedded:teacher"),
        dtype="float32",
        temperature=1.0,
        vocab_size=prepared.vocab_size,
        kind="top_k",
        top_k=K,
    )
    logprobs, tables = Scorer(own).score(requests)
    for request, found, expected in zip(requests, asyncio.run(ask()), logprobs, strict=True):
        table = tables[request.sample_id]
        assert isinstance(table, TopK)
        np.testing.assert_allclose(found.logprobs[:, 0], expected, rtol=2e-6, atol=1e-5)
        np.testing.assert_allclose(found.logprobs, table.logprobs, rtol=2e-6, atol=1e-5)
        np.testing.assert_array_equal(found.token_ids, table.token_ids)


def test_texts_are_written(servers: list[Server]) -> None:
    config, prepared = demo(*overrides(servers))
    asked = ContinuationRequest(prompt_ids=prepared.prompt_ids[0], max_tokens=40, seed=0, temperature=0.0)

    async def ask() -> list[int]:
        client = Servers(served_spec(config, prepared))
        await client.open()
        try:
            found = await client.write(asked)
            assert found.stop_reason == "stop"
            return found.token_ids.tolist()
        finally:
            await client.close()

    ids = asyncio.run(ask())
    assert ids[-1] == prepared.tokenizer.eos_token_id
    assert prepared.task.verify(prepared.rows[0], prepared.tokenizer.decode(ids[:-1])) == "correct"


def test_a_run_goes_on_when_one_server_is_killed_and_waits_while_the_other_is_silent(
    servers: list[Server], tmp_path: Path
) -> None:
    """Last in this file: of its servers one is dead afterwards."""
    folder, log = tmp_path / "run", tmp_path / "run/log.txt"
    small = [f"steps={STEPS}", "batch_size=16", "evaluate.problems=0", "checkpoint.every=3", *runs.SMALL]
    run = runs.train(folder, *overrides(servers, "metrics_port=0", *small))

    def steps() -> int:
        assert run.poll() is None, run.stdout and run.stdout.read()
        return len(runs.lines_of(folder / "metrics.jsonl"))

    try:
        assert wait_until(lambda: steps() >= 1, MOST_SECONDS)
        servers[0].send(signal.SIGKILL)
        assert wait_until(lambda: steps() >= 3, MOST_SECONDS)
        servers[1].send(signal.SIGSTOP)
        assert wait_until(lambda: "no server answers" in log.read_text(), MOST_SECONDS)
        done = steps()
        assert done < STEPS
        servers[1].send(signal.SIGCONT)
        said = runs.finish(run)
    finally:
        servers[1].send(signal.SIGCONT)
        if run.poll() is None:
            run.kill()
    prove_exactly_once(folder)
    assert sorted(r["sample_id"] for r in runs.responses(folder)) == list(range(16 * STEPS))
    assert "pool teacher: 1 of 2 servers answer again" in log.read_text()
    assert all(line["pool/teacher/restarts"] == 0 for line in runs.lines_of(folder / "metrics.jsonl"))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in said
