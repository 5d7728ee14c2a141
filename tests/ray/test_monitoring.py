"""A real run as it is watched: its endpoint while it works, its engines' own metrics, and the trace that it leaves."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from renio_pipeline.ledger import history
from renio_pipeline.metrics import read_jsonl
from tests.ray import runs

OVERLAPPING = [
    "batch_size=16", "data.problems=64", "steps=30", "max_staleness=1", "in_flight=keep", "evaluate.problems=0",
    "metrics_port=0", "trace.steps=30", "pools.generator.replicas=2", "pools.trainer.replicas=2", *runs.SMALL,
]  # fmt: skip
Series = dict[tuple[str, str, str], float]  # by name, pool and replica


@dataclass
class Watched:
    folder: Path
    discovery: Path
    pages: dict[str, str] = field(default_factory=dict)  # the latest of each path
    largest: Series = field(default_factory=dict)  # of the engines
    scrapes: list[float] = field(default_factory=list)  # seconds
    loaded: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # libraries, by what a process is


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    folder = tmp_path_factory.mktemp("runs")
    found = Watched(folder / "run", folder / "discovery")
    process = runs.train(found.folder, *OVERLAPPING, f"metrics_discovery={found.discovery}")
    try:
        scrape_while_it_runs(process, found)
        runs.finish(process)
    finally:
        process.kill()
    return found


def scrape_while_it_runs(process: subprocess.Popen[str], found: Watched) -> None:
    end = time.monotonic() + 400
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.2)
        targets = [json.loads(path.read_text()) for path in found.discovery.glob("*.json")]
        for group in targets[0] if targets else []:
            (address,), path = group["targets"], group["labels"]["__metrics_path__"]
            began = time.perf_counter()
            try:
                with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as page:
                    text = page.read().decode()
            except OSError:
                continue  # it has just ended
            if path == "/metrics":
                found.scrapes.append(time.perf_counter() - began)
            elif text:
                found.largest |= {key: max(value, found.largest.get(key, 0.0)) for key, value in series(text).items()}
            found.pages[path] = text or found.pages.get(path, "")
        if len(found.scrapes) % 5 == 1:
            note_libraries(psutil.Process(process.pid), found.loaded)


def note_libraries(driver: psutil.Process, loaded: dict[str, set[str]]) -> None:
    """Which of torch and vLLM the driver and each kind of actor has in its memory."""
    for process in [driver, *driver.children(recursive=True)]:
        with suppress(psutil.Error, OSError):
            actor = re.match(r"ray::(\w+)", " ".join(process.cmdline()))
            if actor or process == driver:
                mapped = Path(f"/proc/{process.pid}/maps").read_text()
                loaded[actor[1] if actor else "driver"] |= set(re.findall(r"/site-packages/(torch|vllm)/", mapped))


def series(text: str) -> Series:
    found: Series = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for s in family.samples:
            found[s.name, s.labels.get("pool", ""), s.labels.get("replica", "")] += s.value
    return found


def test_counters_of_a_live_run_are_the_sums_of_its_lines(watched: Watched) -> None:
    found = series(watched.pages["/metrics"])
    steps = int(found["renio_steps_total", "", ""])
    assert steps > 3, f"scraped {len(watched.scrapes)} times"
    lines = read_jsonl(watched.folder / "metrics.jsonl")[:steps]
    for name in ("generated", "scored", "trained"):
        assert found[f"renio_tokens_{name}_total", "", ""] == sum(line[f"tokens/{name}"] for line in lines)
    for pool, unit in (("generator", "generated"), ("teacher", "scored"), ("trainer", "trained")):
        replicas = [v for (name, p, _), v in found.items() if (name, p) == ("renio_replica_tokens_total", pool)]
        assert sum(replicas) == found[f"renio_tokens_{unit}_total", "", ""]
    assert found["renio_pool_target", "generator", ""] == 2
    assert found["renio_pool_size", "teacher", ""] == 1
    assert found["renio_pool_size", "trainer", ""] == 2
    busy = {key: v for key, v in found.items() if key[0] == "renio_replica_busy_seconds_total"}
    assert {pool for _, pool, _ in busy} == {"generator", "teacher", "trainer"}
    assert all(v > 0 for v in busy.values())


def test_the_engines_of_generators_and_teachers_say_what_they_do(watched: Watched) -> None:
    found = watched.largest
    assert {pool for (name, pool, _), up in found.items() if name == "renio_engine_up" and up} == {"generator", "teacher"}
    written = sum(v for (name, pool, _), v in found.items() if (name, pool) == ("vllm:generation_tokens_total", "generator"))
    read = sum(v for (name, pool, _), v in found.items() if (name, pool) == ("vllm:prompt_tokens_total", "teacher"))
    assert written > 0
    assert read > 0


def test_torch_and_vllm_are_loaded_where_they_work_and_nowhere_else(watched: Watched) -> None:
    engine, without = {"torch", "vllm"}, set[str]()
    expected = {
        "driver": without, "Control": without, "Weigher": {"torch"}, "TrainerRank": {"torch"}, "Generator": engine,
        "Teacher": engine,
    }  # fmt: skip
    assert {actor: watched.loaded[actor] for actor in expected} == expected


def test_the_trace_shows_who_wrote_scored_and_trained_on_each_sample(watched: Watched) -> None:
    events: list[dict[str, Any]] = json.loads((watched.folder / "trace.json").read_text())["traceEvents"]
    rows = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert set(rows.values()) >= {"generator 0", "teacher 0", "weighting 0", "rank 0", "rank 1"}
    ways: dict[int, list[str]] = defaultdict(list)
    times: dict[int, list[int]] = defaultdict(list)
    for e in events:
        if e["ph"] in "stf":
            ways[e["args"]["sample_id"]].append(rows[e["pid"], e["tid"]])
            times[e["args"]["sample_id"]].append(e["ts"])
    assert all(at == sorted(at) for at in times.values())
    lines = [line for path in (watched.folder / "samples").glob("step_*.jsonl") for line in runs.lines_of(path)]
    ranks = {i: rank for step in history(watched.folder).values() for rank, ids in step.items() for i in ids}
    expected = {
        line["sample_id"]: [
            f"generator {line['generator']}", f"teacher {line['teacher']}", "weighting 0", f"rank {ranks[line['sample_id']]}"
        ]
        for line in lines
    }  # fmt: skip
    assert ways == expected
    slices = defaultdict(list)
    for e in events:
        if e["ph"] == "X":
            slices[rows[e["pid"], e["tid"]]].append((e["ts"], e["ts"] + e["dur"]))
    for row, spans in slices.items():
        spans.sort()
        assert all(a[1] <= b[0] + 1 for a, b in pairwise(spans)), f"{row} shows two things at a time"


def test_the_run_is_no_target_any_more(watched: Watched) -> None:
    assert list(watched.discovery.iterdir()) == []
    assert not (watched.folder / "prometheus.json").exists()
