"""A real run as it is watched: what it counted, what every panel and alert shows of it, and the trace that it leaves."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest
import torch

from renio_pipeline.ledger import history
from renio_pipeline.metrics.registry import METRICS
from renio_pipeline.metrics.sink import read_jsonl
from renio_pipeline.monitoring.names import COUNTED, is_gauge, prometheus_name
from tests.ray import dashboard, runs
from tests.ray.dashboard import Query
from tests.ray.prometheus_server import Labels, Prometheus
from tests.ray.watched import Watched, series

QUERIES = list(dashboard.queries())
NEEDS_A_GPU = {"GPU use", "GPU memory"}  # Ray says them of nodes with a GPU alone; that it knows them, a unit test sees
# Of runs with another weighting or method; their metrics are known to a unit test, and have values in those runs' own tests.
OTHER_RUNS = {"Adaptive weighting", "Recovery of the teacher", "Rewards", "Advantages, and divergence from the first weights"}
SERVED_ELSEWHERE = "renio_pool_away"  # said of teachers that are
# How large a value may be, by the panel's unit. Responses have up to 48 tokens, which are in the bucket below 64.
BOUNDS = {"percent": 100, "percentunit": 1, "s": 600, "bytes": 1e11, "Bps": 1e9, "suffix: nats": 100, "suffix: tokens": 64}
each_query = pytest.mark.parametrize("query", QUERIES, ids=[f"{q.panel}: {q.expression[:40]}" for q in QUERIES])


@pytest.fixture(scope="session")
def server(watched_run: Watched) -> Prometheus:
    if watched_run.server is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus), so no panel and no alert is tried")
    return watched_run.server


@pytest.fixture(scope="session")
def lines(watched_run: Watched) -> list[dict[str, float]]:
    return read_jsonl(watched_run.folder / "metrics.jsonl")


@pytest.fixture(scope="session")
def chosen(watched_run: Watched, server: Prometheus) -> dict[str, str]:
    """What somebody chooses in the dashboard: the run, and all of its pools one by one."""
    (run,) = dashboard.values_of("run", {}, server, watched_run.started, watched_run.looked)
    pools = dashboard.values_of("pool", {"run": run}, server, watched_run.started, watched_run.looked)
    assert sorted(pools) == ["generator", "teacher", "trainer", "weighting"]
    return {"run": run, "pool": dashboard.several(pools)}


def last(server: Prometheus, watched_run: Watched, name: str) -> float:
    """The last value that Prometheus got, summed over series."""
    found = server.at(f"sum(last_over_time({name}[10m]))", watched_run.ended)
    assert found, f"Prometheus never got {name}"
    return found[0][1]


def test_counters_that_prometheus_has_when_the_run_has_ended_are_the_sums_of_its_lines(
    watched_run: Watched, server: Prometheus, lines: list[dict[str, float]]
) -> None:
    for name in COUNTED:
        assert last(server, watched_run, prometheus_name(name)) == sum(line.get(name, 0) for line in lines), name
    trained = runs.responses(watched_run.folder)
    assert last(server, watched_run, "renio_steps_total") == len(lines)
    assert last(server, watched_run, "renio_time_step_seconds_count") == len(lines)
    assert last(server, watched_run, "renio_samples_trained_total") == len(trained)
    assert last(server, watched_run, "renio_sample_weight_count") == len(trained)
    assert last(server, watched_run, "renio_replayed_samples_total") == 0
    for pool, unit in (("generator", "generated"), ("teacher", "scored"), ("trainer", "trained")):
        tokens = sum(line[f"tokens/{unit}"] for line in lines)
        assert last(server, watched_run, f'renio_replica_tokens_total{{pool="{pool}"}}') == tokens
        for replica in "01":
            assert last(server, watched_run, f'renio_replica_busy_seconds_total{{pool="{pool}", replica="{replica}"}}') > 0
    for stage in ("generate", "score", "weigh", "train", "sync"):
        seconds = sum(line[f"time/{stage}"] for line in lines)
        assert last(server, watched_run, f'renio_stage_seconds_sum{{stage="{stage}"}}') == pytest.approx(seconds)


def test_torch_and_vllm_are_loaded_where_they_work_and_nowhere_else(watched_run: Watched) -> None:
    engine, without = {"torch", "vllm"}, set[str]()
    expected = {
        "driver": without,
        "Control": without,
        "Weigher": {"torch"},
        "TrainerRank": {"torch"},
        "Generator": engine,
        "Teacher": engine,
    }
    assert watched_run.loaded == expected


def test_every_gauge_that_prometheus_got_is_what_a_line_says(
    watched_run: Watched, server: Prometheus, lines: list[dict[str, float]]
) -> None:
    for name in (n for n in METRICS if is_gauge(n) and any(n in line for line in lines)):
        (found,) = server.between(prometheus_name(name), watched_run.started, watched_run.looked, 1)
        assert set(found[1]) <= {line[name] for line in lines if name in line}, name


@each_query
def test_a_panel_shows_what_is_plausible(
    query: Query, watched_run: Watched, server: Prometheus, chosen: dict[str, str], lines: list[dict[str, float]]
) -> None:
    expression = dashboard.resolved(query.expression, chosen)
    if query.instant:
        found = [(labels, [value]) for labels, value in server.at(expression, watched_run.looked)]
    else:
        found = server.between(expression, watched_run.started, watched_run.looked, 1)
    if (
        query.panel in OTHER_RUNS
        or SERVED_ELSEWHERE in query.expression
        or (query.panel in NEEDS_A_GPU and not torch.cuda.is_available())
    ):
        assert found == []
        return
    assert 1 <= len(found) <= 100, f"{len(found)} curves"
    values = [value for _, curve in found for value in curve if not math.isnan(value)]
    assert values, "nothing but NaN"
    if not ("/" in expression or "quantile" in expression):
        assert len(values) == sum(len(curve) for _, curve in found), "a value that is no number"
    most = BOUNDS.get(query.unit, 1e5)
    if query.unit == "percentunit" and "rate(" in expression:  # counted once a step: a window may have one step more
        most += max(line["time/step"] for line in lines) / dashboard.RATE_SECONDS
    assert all(math.isfinite(value) and abs(value) <= most for value in values), (min(values), max(values))


def shown(panel: str, watched_run: Watched, server: Prometheus, chosen: dict[str, str]) -> list[tuple[Labels, list[float]]]:
    """The curves of a panel with one query, over the whole run."""
    (query,) = (q for q in QUERIES if q.panel == panel)
    return server.between(dashboard.resolved(query.expression, chosen), watched_run.started, watched_run.ended, 1)


def test_tokens_a_second_add_up_to_those_of_the_runs_lines(
    watched_run: Watched, server: Prometheus, chosen: dict[str, str], lines: list[dict[str, float]]
) -> None:
    found = shown("Tokens per second, by pool", watched_run, server, chosen)
    tokens = {labels["pool"]: sum(curve) for labels, curve in found}
    for pool, unit in (("generator", "generated"), ("teacher", "scored"), ("trainer", "trained")):
        assert tokens[pool] == pytest.approx(sum(line[f"tokens/{unit}"] for line in lines), rel=0.3), pool
    one = shown("Tokens per second, by pool", watched_run, server, chosen | {"pool": "teacher"})
    assert [labels["pool"] for labels, _ in one] == ["teacher"]


def test_where_a_steps_time_goes_is_what_the_runs_lines_say(
    watched_run: Watched, server: Prometheus, chosen: dict[str, str], lines: list[dict[str, float]]
) -> None:
    found = shown("Where a step's time goes", watched_run, server, chosen)
    assert {labels["stage"] for labels, _ in found} >= {"generate", "score", "weigh", "train", "sync"}
    for labels, curve in found:
        seconds = [line[f"time/{labels['stage']}"] for line in lines if f"time/{labels['stage']}" in line]
        means = [value for value in curve if not math.isnan(value)]
        assert 0.8 * min(seconds) <= min(means) <= max(means) <= 1.25 * max(seconds), labels["stage"]


def test_every_alert_can_be_asked_and_none_fires_for_a_run_that_is_well(watched_run: Watched, server: Prometheus) -> None:
    rules = server.alerts()
    assert len(rules) >= 7
    for rule in rules:
        assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule["name"]
        server.at(rule["query"], watched_run.looked)
        for name in set(re.findall(r"\b(?:renio|ray|vllm)[_:]\w+", re.sub(r'"[^"]*"', "", rule["query"]))) - {SERVED_ELSEWHERE}:
            assert server.at(f"count(last_over_time({name}[10m]))", watched_run.ended), f"{rule['name']}: nothing says {name}"
    of_the_run = 'ALERTS{alertstate="firing", alertname=~"Renio.*", alertname!="RenioDiskNearlyFull"}'  # a disk is no run's
    fired = server.between(of_the_run, watched_run.started, watched_run.ended, 1)
    assert [labels["alertname"] for labels, _ in fired] == []


def test_promtool_finds_nothing_wrong_in_the_runs_own_metrics(watched_run: Watched) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus), so names are not checked by it")
    for path, text in watched_run.pages.items():
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
        ours = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("vllm:")]
        assert ours == [], path
    assert set(watched_run.pages) == {"/metrics", "/engines"}


def test_the_engines_of_generators_and_teachers_say_what_they_do(watched_run: Watched) -> None:
    found = series(watched_run.pages["/engines"])
    up = {(pool, replica) for (name, pool, replica), value in found.items() if name == "renio_engine_up" and value}
    assert up == {(pool, replica) for pool in ("generator", "teacher") for replica in "01"}
    for pool, replica in up:
        read = "vllm:generation_tokens_total" if pool == "generator" else "vllm:prompt_tokens_total"
        assert found[read, pool, replica] > 0


def test_the_trace_shows_who_wrote_scored_and_trained_on_each_sample(watched_run: Watched) -> None:
    events: list[dict[str, Any]] = json.loads((watched_run.folder / "trace.json").read_text())["traceEvents"]
    rows = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert set(rows.values()) >= {"generator 0", "teacher 0", "weighting 0", "rank 0", "rank 1"}
    ways: dict[int, list[str]] = defaultdict(list)
    times: dict[int, list[int]] = defaultdict(list)
    for e in events:
        if e["ph"] in "stf":
            ways[e["args"]["sample_id"]].append(rows[e["pid"], e["tid"]])
            times[e["args"]["sample_id"]].append(e["ts"])
    assert all(at == sorted(at) for at in times.values())
    lines = [line for path in (watched_run.folder / "samples").glob("step_*.jsonl") for line in runs.lines_of(path)]
    ranks = {i: rank for step in history(watched_run.folder).values() for rank, ids in step.items() for i in ids}
    expected = {
        line["sample_id"]: [
            f"generator {line['generator']}",
            f"teacher {line['teacher']}",
            "weighting 0",
            f"rank {ranks[line['sample_id']]}",
        ]
        for line in lines
    }
    assert ways == expected
    slices = defaultdict(list)
    for e in events:
        if e["ph"] == "X":
            slices[rows[e["pid"], e["tid"]]].append((e["ts"], e["ts"] + e["dur"]))
    for row, spans in slices.items():
        spans.sort()
        assert all(a[1] <= b[0] + 1 for a, b in pairwise(spans)), f"{row} shows two things at a time"


def test_the_run_is_no_target_any_more(watched_run: Watched) -> None:
    assert list(watched_run.discovery.iterdir()) == []
    assert not (watched_run.folder / "prometheus.json").exists()
