"""Which metrics there are, with which labels: from what a run, vLLM and Ray say; and which ones a query asks for."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from pathlib import Path

TARGET = {"job", "instance"}  # Prometheus' own, of every series
OWN = {"ALERTS": {"alertname", "alertstate", "severity", "run"}, "up": {"run"}}  # Prometheus' own series, of our targets
SUFFIXES = ("_bucket", "_sum", "_count", "_total")


def used_in(query: str) -> dict[str, set[str]]:
    """The metrics of a query in PromQL, each with the labels that its own selector, or the grouping around, names."""
    made = set(re.findall(r', "(\w+)", "\$1"', query))  # by label_replace
    plain = re.sub(r'"[^"]*"', '""', query)  # values are not names
    grouped: set[str] = set()
    for names in re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", plain):
        grouped |= {name.strip() for name in names.split(",") if name.strip()}
    found: dict[str, set[str]] = {}
    for name, selector in re.findall(r"\b((?:renio|vllm|ray)[_:]\w+|up|ALERTS)\b(?:\{([^}]*)\})?", plain):
        found.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
    for labels in found.values():
        labels |= grouped - made
    return found


def known_labels(metric: str) -> set[str]:
    """Raises KeyError if there is no such metric."""
    if metric in OWN:
        return OWN[metric] | TARGET
    if metric.startswith("vllm:"):
        return _vllm()[_base(metric, _vllm())] | {"pool", "replica", "run"} | TARGET
    if metric.startswith("ray_"):
        return _ray()[metric.removeprefix("ray_")] | TARGET
    return _own()[metric] | TARGET


def _base(metric: str, known: dict[str, set[str]]) -> str:
    """Counters and histograms are defined without their suffix."""
    return next((m for s in SUFFIXES if (m := metric.removesuffix(s)) in known), metric)


@functools.cache
def _own() -> dict[str, set[str]]:
    """By a run's own page. What only some steps have is there too."""
    from prometheus_client.parser import text_string_to_metric_families

    from tests.deploy.page import page

    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@functools.cache
def _vllm() -> dict[str, set[str]]:
    """By its source: to import it takes longer than the test may."""
    tree = ast.parse(_source("vllm", "v1/metrics/loggers.py"))
    names = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and str(node.value).startswith("vllm:")]
    return {name: {"model_name", "engine"} for name in names}


@functools.cache
def _ray() -> dict[str, set[str]]:
    """By its source, as above: the gauges of a node's agent, each with the name of its labels' list."""
    consts = ast.parse(_source("ray", "dashboard/consts.py"))
    lists: dict[str, list[str]] = {}
    for node in consts.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.endswith("TAG_KEYS"):
            code = compile(ast.Expression(node.value), "consts", "eval")
            lists[node.targets[0].id] = eval(code, {"__builtins__": {}}, dict(lists))
    agent = ast.parse(_source("ray", "dashboard/modules/reporter/reporter_agent.py"))
    found: dict[str, set[str]] = {}
    for node in ast.walk(agent):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Gauge":
            name, keys = node.args[0], node.args[3]
            if isinstance(name, ast.Constant) and isinstance(keys, ast.Name):
                found[str(name.value)] = set(lists[keys.id])
    return found


def _source(package: str, path: str) -> str:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0], path).read_text()
