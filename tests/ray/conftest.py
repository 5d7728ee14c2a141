"""One Ray cluster for all tests here, and helpers to start the pipeline's own actors in it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import ray

from actors.engines.generator import Ended, Failed, WriteRequest, Written
from actors.packed_messages import pack, unpack
from actors.pools.worker import Kind
from renio_pipeline.config import RunConfig, load
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.types import TrainSample
from tests.ray import runs, warm
from tests.ray.broken import Broken, break_and_finish
from tests.ray.runs import ROOT
from tests.ray.watched import Watched, watch

T = TypeVar("T")
SHARED_RUNS = ("whole_run", "watched_run")  # fixtures of the session that cost a whole run
# What takes longest comes first, so that no process is left alone with it at the end; all else comes in alphabetical order.
LONGEST = (
    *("whole_run", "chaos", "sync", "lora", "watched_run", "native_sync", "served_teacher", "doctor", "rank_checkpoint"),
    *("exact", "opsd", "pool", "reason_first", "service", "own_variants", "arms", "rewards", "probe", "gpu_kit", "plan"),
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For several processes (``-n``): a file's tests stay together, and so do files that look at the same run."""
    from xdist.scheduler import LoadScopeScheduling

    class ByRun(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.partition("::")[0])

    return ByRun(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Other tiers' tests, if there are any, stay before these."""

    def place(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        if not file.startswith("tests/ray/"):
            return -1
        group = group_of(file).removeprefix("tests/ray/test_").removesuffix(".py")
        return LONGEST.index(group) if group in LONGEST else len(LONGEST)

    items.sort(key=place)


@functools.cache
def group_of(file: str) -> str:
    text = (ROOT / file).read_text()
    return next((run for run in SHARED_RUNS if run in text), file)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=16,
        num_gpus=2,
        include_dashboard=False,
        log_to_driver=False,
        namespace="renio",
        runtime_env=warm.runtime_env(),
        _system_config={"prestart_worker_first_driver": False},  # they would have another command: none would ever be used
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The overrides of the whole run."""
    return [*runs.WHOLE, runs.mixture(tmp_path_factory.mktemp("data"))]


@pytest.fixture(scope="session")
def whole_run(whole: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deterministic run with two sources, generators, teachers and trainer ranks each, which nothing interrupts."""
    folder: Path = tmp_path_factory.mktemp("runs") / "whole"
    runs.finish(runs.train(folder, *whole))
    return folder


@pytest.fixture(scope="session")
def broken_run(ray_cluster: None, whole: list[str], tmp_path_factory: pytest.TempPathFactory) -> Broken:
    """The whole run in three parts: killed, stopped, and finished with colocated generators while workers are killed."""
    return break_and_finish(tmp_path_factory.mktemp("runs") / "broken", whole)


@pytest.fixture(scope="session")
def watched_run(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Watched]:
    """A run with two of each under ``ray job submit``, scraped by a real Prometheus."""
    client = pytestconfig.cache.mkdir(f"ray-client-{ray.__version__}")  # type: ignore[union-attr]
    with watch(tmp_path_factory.mktemp("watched"), client) as found:
        yield found


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def demo(*overrides: str) -> tuple[RunConfig, Prepared]:
    """The demo's configuration with few problems, and its data."""
    config = load(ROOT / "configs/demo.yaml", ["data.problems=64", "evaluate.problems=32", *overrides])
    return config, prepare(config)


async def write(generator: Any, requests: Sequence[WriteRequest]) -> list[Written]:
    """What a generator's actor makes of them, in the order in which they end. Raises the error of one that failed."""
    ended: list[Ended] = unpack(await generator.exchange.remote(pack(list(requests))))
    while len(ended) < len(requests):
        ended += unpack(await generator.exchange.remote(pack([])))
    for each in ended:
        if isinstance(each, Failed):
            raise each.error
    return [each for each in ended if isinstance(each, Written)]


def samples_of(prepared: Prepared, count: int, seed: int = 0) -> list[TrainSample]:
    """Samples with worked solutions as responses, and log-probabilities that only fill the fields."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        ids = np.asarray(prepared.tokenizer(prepared.rows[i].solution, add_special_tokens=False)["input_ids"], np.int32)
        noise = rng.normal(-1, 0.3, len(ids)).astype(np.float32)
        samples.append(
            TrainSample(
                sample_id=i,
                prompt_ids=prepared.prompt_ids[i],
                response_ids=ids,
                student_logprobs=noise,
                teacher_logprobs=noise - 0.1,
                weight=float(rng.uniform(0.2, 2.0)),
            )
        )
    return samples


@contextmanager
def bare(kind: Kind) -> Iterator[Any]:
    """The actor of one worker, loading, without the pool around it."""
    lease = kind.start(0)
    try:
        yield lease.actor
    finally:
        lease.end(0)


def kill(actors: Sequence[Any]) -> None:
    for actor in actors:
        ray.kill(actor)
