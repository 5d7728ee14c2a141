"""Prometheus' configuration and alert rules: read by promtool, and held against what a run says and what it can be told."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from renio_pipeline.config import RunConfig
from tests.deploy.manifests import ROOT
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


def keys_of(model: type[BaseModel]) -> set[str]:
    return {*model.model_fields}


SECTIONS = {
    "generator": "Generator", "teacher": "Teacher", "trainer": "Trainer", "faults": "Faults", "checkpoint": "Checkpoint",
    "evaluate": "Evaluate", "payload": "Payload", "data": "Data", "weighting": "Renio", "sync": "Sync",
}  # fmt: skip


@pytest.mark.parametrize(
    "path", [FOLDER / "alerts.yaml", *sorted((ROOT / "deploy" / "grafana" / "rows").glob("*.py"))], ids=str
)
def test_keys_that_a_text_says_to_change_are_the_configurations(path: Path) -> None:
    from renio_pipeline import schema

    text = path.read_text()
    named = re.findall(rf"\b({'|'.join(SECTIONS)})\.([a-z_*]+)\b(?!\()", text)
    for section, key in named:
        fields = keys_of(getattr(schema, SECTIONS[section]))
        assert any(re.fullmatch(key.replace("*", ".*"), field) for field in fields), f"{section}.{key}"
    for key in re.findall(r"\bpools\.POOL\.(\w+)", text):
        assert key in keys_of(schema.Pool)
    top = re.findall(r"\b(max_staleness|max_response_tokens|batch_size|student_logprobs|in_flight|metrics_\w+)\b", text)
    assert set(top) <= keys_of(RunConfig)
    if path.suffix == ".yaml":
        assert len(named) > 10
