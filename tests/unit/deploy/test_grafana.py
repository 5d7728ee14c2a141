"""The dashboard: made by its code, whole, and about metrics that there are; and what brings it up beside Prometheus."""

from __future__ import annotations

import json
import re
from itertools import combinations, pairwise
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana import build
from tests.deploy.manifests import ROOT
from tests.deploy.metrics import known_labels, used_in

FOLDER = ROOT / "deploy" / "grafana"
BOARD: dict[str, Any] = json.loads(build.PATH.read_text())
ROWS = [panel for panel in BOARD["panels"] if panel["type"] == "row"]
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
TITLES = [panel["title"] for panel in PANELS]
VARIABLES = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
each_panel = pytest.mark.parametrize("panel", PANELS, ids=TITLES)


def test_the_file_is_what_the_code_makes() -> None:
    assert build.PATH.read_text() == build.text(), "python -m deploy.grafana.build"


def test_nothing_of_it_is_unknown_to_grafanas_schema() -> None:
    """The SDK's classes are generated from it: what they do not know is lost on the way through them."""
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(BOARD)))
    assert again == BOARD


def test_every_panel_has_a_place_of_its_own_below_its_rows_title() -> None:
    for a, b in combinations([panel["gridPos"] for panel in BOARD["panels"]], 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert apart, (a, b)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)
    for here, below in pairwise([row["gridPos"]["y"] for row in ROWS] + [max(p["gridPos"]["y"] for p in PANELS) + 1]):
        lines: dict[int, int] = {}
        for place in (p["gridPos"] for p in PANELS if here < p["gridPos"]["y"] < below):
            lines[place["y"]] = lines.get(place["y"], 0) + place["w"]
        assert lines
        assert set(lines.values()) == {24}, "the page's whole width"


def test_panels_are_told_apart() -> None:
    assert len(set(TITLES)) == len(TITLES) > 30
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)


@each_panel
def test_a_panel_says_its_unit_and_what_to_make_of_it(panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert len(panel["description"]) > 20
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    if panel["type"] == "heatmap":
        assert panel["options"]["yAxis"]["unit"]
        assert panel["targets"][0]["format"] == "heatmap"
    refs = [target["refId"] for target in panel["targets"]]
    assert len(set(refs)) == len(refs) >= 1


@each_panel
def test_a_panel_asks_for_metrics_labels_and_variables_that_there_are(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        found = used_in(target["expr"])
        assert found, target["expr"]
        for metric, labels in found.items():
            assert labels <= known_labels(metric), metric
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            shown -= set(re.findall(r', "(\w+)", "\$1"', target["expr"]))  # made by label_replace
            assert shown <= known_labels(metric), metric
            ours = metric == "ALERTS" or not metric.startswith("ray_")
            assert not ours or re.search(rf'{metric}\{{[^}}]*run="\$run"', target["expr"]), "of the run that was chosen"
        named = set(re.findall(r"\$([a-zA-Z_]\w*)", target["expr"]))
        assert named <= VARIABLES.keys() | {"__rate_interval"}


def test_variables_are_asked_of_metrics_that_there_are_and_are_used() -> None:
    assert list(VARIABLES) == ["datasource", "run", "pool"]
    text = json.dumps(PANELS)
    for name, variable in VARIABLES.items():
        assert f"${name}" in text or f"${{{name}}}" in text
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
            assert label in known_labels(metric)
    assert VARIABLES["pool"]["multi"]


@pytest.mark.parametrize(
    "wanted",
    [
        "renio_replica_samples_total", "renio_replica_tokens_total", "renio_stage_seconds_sum", "renio_idle_ratio",
        "renio_pool_queue", "renio_pool_in_flight", "renio_pool_size", "renio_pool_target", "renio_staleness_max",
        "renio_sync_bytes_total",
        "renio_sample_weight_bucket", "renio_weights_effective_sample_size", "renio_pivotal_fraction", "renio_loss",
        "renio_divergence", "renio_grad_norm", "renio_mismatch_logprob_abs_mean", "renio_reward_accuracy_ratio",
        "renio_eval_accuracy_ratio", "renio_response_length_tokens_bucket", "renio_pool_restarts_total",
        "renio_samples_rejected_total", "renio_replayed_samples_total", "ray_node_gpus_utilization", "ray_node_gram_used",
        "ray_node_mem_used", "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
    ],
)  # fmt: skip
def test_what_people_look_for_is_shown(wanted: str) -> None:
    assert any(wanted in used_in(target["expr"]) for panel in PANELS for target in panel["targets"])


def test_what_is_shown_in_percent_is_a_share() -> None:
    for panel in PANELS:
        if panel["fieldConfig"]["defaults"]["unit"] == "percentunit":
            for target in panel["targets"]:
                assert re.search(r"_ratio|_perc\b|_fraction| / |busy_seconds", target["expr"]), target["expr"]


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / "deploy" / path).read_text())


def test_grafana_finds_the_dashboard_and_its_prometheus_where_compose_puts_them() -> None:
    services = load("compose.yaml")["services"]
    (provider,) = load("grafana/provisioning/dashboards/renio.yaml")["providers"]
    (source,) = load("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    mounted = {v["target"]: v["source"] for v in services["grafana"]["volumes"]}
    assert ROOT / "deploy" / mounted[provider["options"]["path"]] == build.PATH.parent
    assert (ROOT / "deploy" / mounted["/etc/grafana/provisioning"]).is_dir()
    assert f"--web.listen-address={source['url'].removeprefix('http://')}" in services["prometheus"]["command"]
    assert source["jsonData"]["timeInterval"] == load("prometheus/prometheus.yml")["global"]["scrape_interval"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/{build.PATH.name}"


def test_prometheus_finds_its_files_and_the_targets_where_compose_puts_them() -> None:
    prometheus = load("compose.yaml")["services"]["prometheus"]
    mounted = {v["target"]: v["source"] for v in prometheus["volumes"]}
    assert "--config.file=/etc/prometheus/prometheus.yml" in prometheus["command"]
    config = load("prometheus/prometheus.yml")
    for name in ["prometheus.yml", *config["rule_files"]]:
        assert (ROOT / "deploy" / mounted["/etc/prometheus"] / name).is_file()
    for job in config["scrape_configs"]:
        for files in (sd["files"] for sd in job.get("file_sd_configs", ())):
            folders = [path.rpartition("/")[0].replace("../..", "") for path in files]  # the file is in /etc/prometheus
            assert all(folder in mounted for folder in folders)


def test_nobody_but_this_machine_reaches_either_and_nobody_is_let_in_by_a_default_password() -> None:
    services = load("compose.yaml")["services"]
    assert all(service["network_mode"] == "host" and "ports" not in service for service in services.values())
    assert all(re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]) for service in services.values())
    environment = services["grafana"]["environment"]
    assert environment["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert (environment["GF_AUTH_BASIC_ENABLED"], environment["GF_AUTH_DISABLE_LOGIN_FORM"]) == ("false", "true")
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
