"""Prometheus' configuration and alert rules: read by promtool, and held against what a run says and what it can be told."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from renio_pipeline.config import RunConfig
from tests.deploy.manifests import ROOT, groups_of, one, pods_of
from tests.deploy.metrics import known_labels, used_in

FOLDER = ROOT / "deploy" / "prometheus"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
NAMES = [rule["alert"] for rule in RULES]


def promtool(*command: str) -> str:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus), so it did not read the files")
    done = subprocess.run(["promtool", *command], cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_configuration_and_the_rules() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "config", "prometheus.yml")
    assert "SUCCESS" in promtool("check", "rules", "--lint-fatal", "alerts.yaml")


def pods_targets() -> list[dict[str, Any]]:
    """What Kubernetes would tell Prometheus of the pods in the manifests: a target for each port, or one."""
    found = []
    for i, (name, pod) in enumerate(pods_of("base").items()):
        labels = pod["metadata"]["labels"] | {
            "ray.io/node-type": "head" if name == "head" else "worker"
        }  # the latter is KubeRay's
        about = {f"__meta_kubernetes_pod_label_{re.sub(r'[^a-zA-Z0-9]', '_', key)}": v for key, v in labels.items()}
        about |= {"__meta_kubernetes_pod_ip": f"10.0.0.{i}", "__meta_kubernetes_pod_name": name}
        for port in [port for c in pod["spec"]["containers"] for port in c.get("ports", ())] or [None]:
            address = f"10.0.0.{i}:{port['containerPort']}" if port else f"10.0.0.{i}"
            of_port = {"__meta_kubernetes_pod_container_port_name": port["name"]} if port else {}
            found.append({"targets": [address], "labels": about | of_port})
    return found


@pytest.mark.parametrize(
    ("job", "ports"), [("renio-pods", {"/metrics": 9200}), ("renio-engines", {"/engines": 9200}), ("ray", {"/metrics": 8080})]
)
def test_in_kubernetes_a_run_and_every_node_are_found(job: str, ports: dict[str, int], tmp_path: Path) -> None:
    """Debian's Prometheus knows no Kubernetes, so a file says what that would say, and promtool relabels it."""
    config = yaml.safe_load((FOLDER / "kubernetes.yml").read_text())
    (pods,) = config["scrape_configs"][0]["kubernetes_sd_configs"]
    assert pods == {"role": "pod", "namespaces": {"names": [one("base", "RayCluster")["metadata"]["namespace"]]}}
    (tmp_path / "pods.json").write_text(json.dumps(pods_targets()))
    for found in config["scrape_configs"]:
        assert found.pop("kubernetes_sd_configs") == [pods]
        found["file_sd_configs"] = [{"files": ["pods.json"]}]
    (tmp_path / "config.yml").write_text(yaml.safe_dump(config | {"rule_files": []}))
    answer = promtool("check", "service-discovery", "--timeout=1s", str(tmp_path / "config.yml"), job)
    kept = [target["labels"] for target in json.loads(answer) if target["labels"]]
    (path,) = ports
    pods_kept = {"head"} if job != "ray" else set(groups_of("base"))
    addresses = {f"10.0.0.{i}:{ports[path]}" for i, name in enumerate(pods_of("base")) if name in pods_kept}
    assert {target["__address__"] for target in kept} == addresses
    assert {target["__metrics_path__"] for target in kept} == {path}


def test_each_alert_fires_and_stays_quiet_where_it_should() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yaml")


@pytest.mark.parametrize("alert", NAMES)
def test_every_alert_is_shown_firing_and_beside_it_quiet(alert: str) -> None:
    """Else the test above could pass without a word on this one."""
    tests = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"]
    shown = [test["promql_expr_test"] for test in tests]
    firing = [cases for cases in shown if any(f'"{alert}"' in s["labels"] for c in cases for s in c.get("exp_samples", ()))]
    assert firing
    asked = re.compile(rf'alertname=~?"([^"]*\|)?{alert}[|"]')
    for cases in firing:
        assert [c for c in cases if "exp_samples" not in c and (asked.search(c["expr"]) or "alertname" not in c["expr"])]


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_an_alert_asks_for_metrics_and_labels_that_there_are(rule: dict[str, Any]) -> None:
    found = used_in(rule["expr"])
    assert found
    for metric, labels in found.items():
        assert labels <= known_labels(metric), metric


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "description", "action"}
    shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert shown, "a summary tells whose it is"
    for metric in used_in(rule["expr"]):
        assert shown <= known_labels(metric)


@pytest.mark.parametrize("alert", NAMES)
def test_the_page_on_monitoring_says_what_to_do_about_it(alert: str) -> None:
    table = [line for line in (ROOT / "docs" / "monitoring.md").read_text().splitlines() if line.startswith("|")]
    assert [line for line in table if f"`{alert}`" in line and line.count(" | ") == 2]


def keys_of(model: type[BaseModel]) -> set[str]:
    return {*model.model_fields}


SECTIONS = {
    "generator": "Generator",
    "teacher": "Teacher",
    "trainer": "Trainer",
    "faults": "Faults",
    "checkpoint": "Checkpoint",
    "evaluate": "Evaluate",
    "payload": "Payload",
    "data": "Data",
    "weighting": "",  # a class of the registry
    "diagnostics": "Diagnostics",
    "sync": "Sync",
}


@pytest.mark.parametrize(
    "path", [FOLDER / "alerts.yaml", *sorted((ROOT / "deploy" / "grafana" / "rows").glob("*.py"))], ids=str
)
def test_keys_that_a_text_says_to_change_are_the_configurations(path: Path) -> None:
    from renio_pipeline.config import schema
    from renio_pipeline.config.variants import registered

    text = path.read_text()
    named = re.findall(rf"\b({'|'.join(SECTIONS)})\.([a-z_*]+)\b(?!\()", text)
    for section, key in named:
        kinds = registered("weighting").values() if section == "weighting" else [getattr(schema, SECTIONS[section])]
        fields = {field for kind in kinds for field in keys_of(kind)}
        assert any(re.fullmatch(key.replace("*", ".*"), field) for field in fields), f"{section}.{key}"
    for key in re.findall(r"\bpools\.POOL\.(\w+)", text):
        assert key in keys_of(schema.Pool)
    top = re.findall(r"\b(max_staleness|max_response_tokens|batch_size|student_logprobs|in_flight|metrics_\w+)\b", text)
    assert set(top) <= keys_of(RunConfig)
    if path.suffix == ".yaml":
        assert len(named) > 10
