"""The Prometheus endpoint: names and kinds, counts against the run's own files, cost of a scrape, discovery."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.control.commands import in_background
from renio_pipeline.ledger import history
from renio_pipeline.loop.run import Run
from renio_pipeline.metrics.registry import METRICS, TOTALS
from renio_pipeline.metrics.sink import read_jsonl
from renio_pipeline.metrics.step_metrics import step_metrics
from renio_pipeline.monitoring.discovery import discoverable
from renio_pipeline.monitoring.endpoint import MOST_OPEN, _Silent
from renio_pipeline.monitoring.histogram import Histogram, doubling
from renio_pipeline.monitoring.names import COUNTED, prometheus_name
from renio_pipeline.monitoring.prometheus import PrometheusSink
from renio_pipeline.preflight import Prepared
from renio_pipeline.stages.outcomes import StepResult
from tests.fakes.stages import BATCH, config_of, prepared, run_of, stages_of, step_of
from tests.unit.conftest import make_config
from tests.unit.loop.test_lookahead import service_of

T = TypeVar("T")
__all__ = ["prepared"]  # a fixture
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]  # by name, and labels but for the run's


@contextmanager
def endpoint(config: RunConfig) -> Iterator[PrometheusSink]:
    sink = PrometheusSink(config, "127.0.0.1")
    try:
        yield sink
    finally:
        sink.close()


def page(sink: PrometheusSink, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://{sink.address}{path}", timeout=20) as answer:
        return str(answer.read().decode())


def samples(text: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "run"))
            assert (sample.name, labels) not in found, "the same series twice"
            found[sample.name, labels] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def large_step(prepared: Prepared, config: RunConfig, replicas: int, times: int = 1) -> StepResult:
    """A step whose samples were written, scored and trained on by so many replicas."""
    result = asyncio.run(step_of(prepared, config, stages_of(prepared, config)))
    judged, scored = {}, []
    for i, s in enumerate(result.scored * times):
        rollout = replace(s.rollout, replica=str(i % replicas), prompt=replace(s.rollout.prompt, sample_id=i))
        judged[i] = replace(result.judged[s.rollout.sample_id], rollout=rollout)
        scored.append(replace(s, rollout=rollout, scores=replace(s.scores, sample_id=i, replica=str(i % replicas))))
    workers = {f"{i}/{1000 + i}": 2.5 for i in range(replicas)}
    ids = list(range(len(scored)))
    report = replace(result.report, busy_seconds=[1.5] * replicas, shares=[ids[rank::replicas] for rank in range(replicas)])
    weighed = replace(result.weighed, weights=np.tile(result.weighed.weights, times), raw=np.tile(result.weighed.raw, times))
    return replace(
        result,
        judged=judged,
        scored=scored,
        student=result.student * times,
        report=report,
        weighed=weighed,
        busy={"generator": workers, "teacher": workers},
    )


def statuses(replicas: int) -> dict[str, dict[str, int]]:
    pool = {
        "target": replicas,
        "serving": replicas,
        "starting": 0,
        "waiting": 0,
        "away": 0,
        "queue": 7,
        "in_flight": 9,
        "restarts": 1,
    }
    return {"generator": pool, "teacher": pool, "trainer": {"target": 2, "serving": 2, "restarts": 0}}


def fill(sink: PrometheusSink, result: StepResult, replicas: int) -> dict[str, float]:
    pools = statuses(replicas)
    metrics = step_metrics(result, {"generator": replicas, "teacher": replicas}, pools)
    metrics |= {"eval/accuracy": 0.5, "eval/response_tokens": 9.0}
    sink.observe(result)
    sink.write(1, metrics)
    sink.count(dict.fromkeys(TOTALS, 0))
    sink._live._seen = pools
    return metrics


def test_promtool_finds_nothing_wrong_and_every_metric_is_there(prepared: Prepared) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus), so names are not checked by it")
    config = config_of(metrics_port=0)
    with endpoint(config) as sink:
        metrics = fill(sink, large_step(prepared, config, 2), 2)
        text = page(sink)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    names = {family.name for family in text_string_to_metric_families(text)}
    missing = {name for name in metrics if prometheus_name(name).removesuffix("_total") not in names}
    assert not missing


def test_there_is_no_label_that_could_grow_without_end(prepared: Prepared) -> None:
    config = config_of(metrics_port=0)
    with endpoint(config) as sink:
        for step in range(3):
            result = large_step(prepared, config, 3)
            busy = {kind: {f"{i}/{1000 * step + i}": 1.0 for i in range(3)} for kind in ("generator", "teacher")}
            fill(sink, replace(result, busy=busy), 3)  # every step has processes of its own
        text = page(sink)
    series = Counter(name for name, _ in samples(text))
    labels = {
        label
        for family in text_string_to_metric_families(text)
        if family.name != "renio_run_info"
        for sample in family.samples
        for label in sample.labels
    }
    assert labels == {"run", "pool", "replica", "stage", "le"}
    assert series["renio_replica_busy_seconds_total"] == 9
    assert value(samples(text), "renio_replica_busy_seconds_total", pool="teacher", replica="2") == 3.0


def test_what_is_shown_of_a_step_is_what_it_did(prepared: Prepared) -> None:
    config = config_of(metrics_port=0, name="mine")
    result = large_step(prepared, config, 2)
    with endpoint(config) as sink:
        metrics = fill(sink, result, 2)
        text = page(sink)
    assert 'run="mine"' in text
    assert "_created" not in text
    found = samples(text)
    assert value(found, "renio_loss") == metrics["loss"]
    assert value(found, "renio_idle_ratio", pool="teacher") == metrics["idle/teacher"]
    assert value(found, "renio_tokens_generated_total") == metrics["tokens/generated"]
    assert value(found, "renio_response_length_tokens_sum") == metrics["tokens/generated"]
    assert value(found, "renio_response_length_tokens_count") == BATCH
    assert value(found, "renio_stage_seconds_sum", stage="train") == metrics["time/train"]
    assert value(found, "renio_sample_weight_sum") == pytest.approx(BATCH)
    tokens = value(found, "renio_log_ratio_nats_bucket", le="+Inf")
    assert tokens == metrics["tokens/generated"]
    below = value(found, "renio_log_ratio_nats_bucket", le="0.8")  # the configuration's threshold
    assert 1 - below / tokens == pytest.approx(metrics["pivotal/fraction"])
    assert value(found, "renio_pool_queue", pool="generator") == 7
    assert value(found, "renio_pool_restarts_total", pool="teacher") == 1
    of_pool = Counter[str]()
    for (name, labels), count in found.items():
        if name == "renio_replica_samples_total":
            of_pool[dict(labels)["pool"]] += int(count)
    assert of_pool == {"generator": BATCH, "teacher": BATCH, "trainer": BATCH}
    info = next(dict(labels) for name, labels in found if name == "renio_run_info")
    assert (info["method"], info["objective"], info["weighting"]) == ("opd", "top_k_forward_kl", "renio")
    assert all(info[f"{package}_version"] for package in ("torch", "vllm", "ray", "deepspeed", "transformers", "renio"))


def test_each_teachers_replicas_are_apart(prepared: Prepared) -> None:
    config = config_of(metrics_port=0)
    result = large_step(prepared, config, 1)
    scored = [replace(s, scores=replace(s.scores, replica=("maths/0", "code/0")[i % 2])) for i, s in enumerate(result.scored)]
    busy = {"generator": {}, "teacher": {"maths/0/11": 4.0, "code/0/12": 3.0}}
    idle = {"teacher.maths": 0.1, "teacher.code": 0.9}
    with endpoint(config) as sink:
        fill(sink, replace(result, scored=scored, busy=busy, teachers_idle=idle), 1)
        found = samples(page(sink))
    pools = {dict(labels)["pool"]: share for (name, labels), share in found.items() if name == "renio_idle_ratio"}
    assert pools == idle | {pool: result.idle[f"idle/{pool}"] for pool in ("generator", "trainer")}
    assert value(found, "renio_replica_samples_total", pool="teacher.maths", replica="0") == BATCH / 2
    assert value(found, "renio_replica_busy_seconds_total", pool="teacher.code", replica="0") == 3.0


def counts(text: str) -> Samples:
    return {key: v for key, v in samples(text).items() if key[0].endswith("_total")}


def expected_of(lines: list[dict[str, float]]) -> dict[str, float]:
    """What the counters of a run without a replay must say, by its metrics.jsonl."""
    return {
        "renio_steps_total": len(lines),
        "renio_replayed_steps_total": 0,
        "renio_replayed_samples_total": 0,
        "renio_samples_rejected_total": 0,
        **{prometheus_name(name): sum(line[name] for line in lines) for name in COUNTED if name in METRICS},
    }


def watched(run: Run) -> PrometheusSink:
    sink = PrometheusSink(run.config, "127.0.0.1")
    run.sinks = [*run.sinks, sink]
    return sink


def text_of(sink: PrometheusSink) -> str:
    """What it would say still: a run closes its endpoint at its end."""
    return generate_latest(sink._figures).decode()  # type: ignore[arg-type]


def test_counters_agree_exactly_with_the_metrics_file_of_a_run_without_replay(tmp_path: Path, prepared: Prepared) -> None:
    run = run_of(tmp_path, prepared, steps=7, metrics_port=0)
    sink = watched(run)
    asyncio.run(run.run())
    lines = read_jsonl(run.directory.metrics)
    found = {name: v for (name, labels), v in counts(text_of(sink)).items() if not labels}
    assert found == expected_of(lines) | {"renio_samples_trained_total": 7 * BATCH}
    everything = samples(text_of(sink))
    for stage in ("generate", "score", "weigh", "train", "sync"):
        assert value(everything, "renio_stage_seconds_sum", stage=stage) == sum(line[f"time/{stage}"] for line in lines)
    assert value(everything, "renio_time_step_seconds_count") == 7


def test_counters_agree_with_the_ledgers_where_steps_were_trained_again(tmp_path: Path, prepared: Prepared) -> None:
    run = service_of(tmp_path, prepared, steps=8, checkpoint={"every": 3}, evaluate={"problems": 0}, metrics_port=0)
    run.stages.trainers.lost_in = [6, 8, 8]
    sink = watched(run)
    asyncio.run(run.run())
    final = history(run.directory.path)
    once = sum(len(ids) for ranks in final.values() for ids in ranks.values())
    found = counts(text_of(sink))
    again = value(found, "renio_replayed_samples_total")
    assert again == run.replayed["samples"] > 0
    assert value(found, "renio_samples_trained_total") == once + again
    assert value(found, "renio_steps_total") == len(final) + value(found, "renio_replayed_steps_total")


def test_counters_never_fall_when_the_run_goes_back(tmp_path: Path, prepared: Prepared) -> None:
    run = service_of(tmp_path, prepared, steps=5, checkpoint={"every": 2}, evaluate={"problems": 0}, metrics_port=0)
    run.stages.trainers.lost_in = [4]
    sink = watched(run)
    seen: list[Samples] = []
    step = run.progress.step

    def look(number: int, metrics: dict[str, float]) -> None:
        seen.append(counts(text_of(sink)))
        step(number, metrics)

    run.progress.step = look
    asyncio.run(run.run())
    assert len(seen) == 6, "one step was trained again"
    for before, after in pairwise(seen):
        assert all(after[key] >= count for key, count in before.items())


def test_a_scrape_of_64_replicas_is_small_and_cheap(prepared: Prepared) -> None:
    config = config_of(metrics_port=0)
    with endpoint(config) as sink:
        fill(sink, large_step(prepared, config, 64, times=64), 64)
        page(sink)  # the first one imports
        # CPU time of the driver and of the client, which runs in the same process: what a scrape takes from a step.
        pages = [timed(lambda: page(sink)) for _ in range(7)]
        yardstick = min(timed(lambda: [str(i) for i in range(200_000)])[0] for _ in range(3))
    seconds, size = min(taken for taken, _ in pages), len(pages[0][1])
    assert 20_000 < size < 1_000_000
    assert seconds < yardstick, f"a scrape of {size} bytes took {seconds} s, 200 000 numbers as text {yardstick} s"


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """CPU seconds of this process, and the result."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


@pytest.mark.slow
def test_the_runs_loop_goes_on_while_it_is_scraped_without_a_pause(prepared: Prepared) -> None:
    config = config_of(metrics_port=0)
    scraped = 0

    async def longest_wait(seconds: float) -> float:
        worst, end = 0.0, time.perf_counter() + seconds
        while (now := time.perf_counter()) < end:
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - now)
        return worst

    def scrape(sink: PrometheusSink, stop: threading.Event) -> None:
        nonlocal scraped
        while not stop.is_set():
            page(sink)
            scraped += 1

    with endpoint(config) as sink:
        fill(sink, large_step(prepared, config, 64, times=64), 64)
        stop = threading.Event()
        scraper = threading.Thread(target=scrape, args=(sink, stop))
        scraper.start()
        waits = [asyncio.run(longest_wait(0.3)) for _ in range(4)]
        stop.set()
        scraper.join()
    assert scraped > 4
    # Nothing is locked, so the loop waits for its turn of the interpreter (5 ms) alone, or for a machine that is busy.
    assert min(waits) < 0.1, f"the loop was kept waiting for {waits} in {scraped} scrapes"


@pytest.mark.slow
def test_many_slow_connections_keep_no_scrape_out_and_take_no_more_threads() -> None:
    with endpoint(make_config(metrics_port=0)) as sink, ExitStack() as slow:
        page(sink)
        threads = threading.active_count()
        host, port = sink.address.split(":")
        for _ in range(3 * MOST_OPEN):
            connection = slow.enter_context(socket.create_connection((host, int(port)), timeout=20))
            connection.sendall(b"GET /metrics HTTP/1.1\r\nX: ")  # and never ends
        assert "renio_steps_total" in page(sink)
        deadline = time.monotonic() + 20
        while threading.active_count() - threads > MOST_OPEN and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() - threads <= MOST_OPEN


def test_who_goes_away_or_falls_silent_is_no_news(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Silent, "timeout", 0.1)
    with endpoint(make_config(metrics_port=0)) as sink:
        host, port = sink.address.split(":")
        with socket.create_connection((host, int(port)), timeout=20) as silent:
            assert silent.recv(1) == b"", "it was closed"
        gone = socket.create_connection((host, int(port)), timeout=20)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
        gone.close()
        page(sink)
        time.sleep(0.05)
    assert capfd.readouterr().err == ""


def test_a_page_that_there_is_not_says_which_there_are(prepared: Prepared) -> None:
    with endpoint(config_of(metrics_port=0)) as sink:
        with pytest.raises(urllib.error.HTTPError) as found:
            page(sink, "/status")
        assert found.value.code == 404
        assert "/engines" in found.value.read().decode()
        assert page(sink, "/") == page(sink, "/metrics/")


def test_a_taken_port_is_an_error_that_says_so() -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"metrics_port: {port} cannot be used: Address already in use; choose another"):
            PrometheusSink(make_config(metrics_port=port), "127.0.0.1")


def test_the_run_is_found_by_its_files_while_it_serves_and_no_longer(tmp_path: Path, prepared: Prepared) -> None:
    folder = tmp_path / "all"
    run = run_of(tmp_path, prepared, metrics_port=0, metrics_discovery=str(folder))

    async def go(sink: PrometheusSink) -> tuple[list[Any], list[Any]]:
        async with in_background(sink.serve(run)):
            await asyncio.sleep(0.05)
            (shared,) = folder.glob("*.json")
            return json.loads((run.directory.path / "prometheus.json").read_text()), json.loads(shared.read_text())

    with endpoint(run.config) as sink:
        own, shared = asyncio.run(go(sink))
        address = sink.address
    assert own == shared
    assert [(g["targets"], g["labels"]) for g in own] == [
        ([address], {"run": "run", "__metrics_path__": path}) for path in ("/metrics", "/engines")
    ]
    assert list(folder.iterdir()) == []
    assert not (run.directory.path / "prometheus.json").exists()


@pytest.mark.slow
def test_prometheus_takes_the_discovery_file(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus), so the file is not read by it")
    config = make_config(metrics_port=9200, metrics_discovery=str(tmp_path / "all"), run_dir=str(tmp_path / "run"))
    job = {"job_name": "renio", "honor_labels": True, "file_sd_configs": [{"files": [str(tmp_path / "all" / "*.json")]}]}
    (tmp_path / "prometheus.yml").write_text(json.dumps({"scrape_configs": [job]}))
    for name in ("all", "run"):
        (tmp_path / name).mkdir()
    with discoverable(config, "10.0.0.1:9200"):
        command = ["promtool", "check", "service-discovery", "--timeout=3s", "prometheus.yml", "renio"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = [target["labels"] for target in json.loads(done.stdout)]
    assert {(t["__address__"], t["__metrics_path__"], t["run"]) for t in found if t} == {
        ("10.0.0.1:9200", "/metrics", "run"),
        ("10.0.0.1:9200", "/engines", "run"),
    }


def test_a_folder_for_discovery_that_cannot_be_made_is_an_error_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"metrics_discovery: .*file/below cannot be created"):
        PrometheusSink(make_config(metrics_port=0, metrics_discovery=str(tmp_path / "file/below")), "127.0.0.1")
    with pytest.raises(ConfigError, match=r"metrics_discovery: .*metrics_port"):
        make_config(metrics_discovery=str(tmp_path))


def test_names_are_legal_and_each_kinds_own() -> None:
    assert {prometheus_name(n) for n in ("time/train", "time/sync")} == {"renio_stage_seconds"}
    assert prometheus_name("memory/driver/peak") == "renio_memory_driver_peak_bytes"
    assert prometheus_name("reward/accuracy") == "renio_reward_accuracy_ratio"
    assert prometheus_name("sync/bytes") == "renio_sync_bytes_total"
    assert prometheus_name("time/step") == "renio_time_step_seconds"


@settings(deadline=None)
@given(
    st.lists(st.floats(-100, 100, width=32), max_size=50),
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=8, unique=True),
)
def test_a_histogram_counts_as_the_librarys_own_does(values: list[float], bounds: list[float]) -> None:
    from prometheus_client import CollectorRegistry
    from prometheus_client import Histogram as Reference

    mine, reference = Histogram(bounds), Reference("r", "", buckets=sorted(bounds), registry=CollectorRegistry())
    mine.observe(values)
    mine.observe([float("nan"), float("inf")])
    for v in values:
        reference.observe(v)
    found = {s.labels["le"]: s.value for s in next(iter(reference.collect())).samples if s.name == "r_bucket"}
    buckets, total = mine.read()
    assert dict(buckets) == found
    assert total == pytest.approx(sum(values), abs=1e-9)


def test_buckets_of_lengths_reach_the_longest_response() -> None:
    assert doubling(1, 48)[-2:] == [32, 64]
