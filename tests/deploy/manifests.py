"""The manifests of ``deploy/kubernetes``, resolved as ``kubectl apply -k`` resolves them, and what tests ask of them."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("base", "small", "gpu-8", "multi-node")
BUILDS = (*OVERLAYS, *(f"jobs/{name}" for name in OVERLAYS))
MiB = 2**20
SUFFIXES = {"Ki": 2**10, "Mi": MiB, "Gi": 2**30, "Ti": 2**40, "m": 1e-3, "": 1.0}


@cache
def resolved(build: str) -> list[dict[str, Any]]:
    """What ``kustomize`` makes of a folder below ``deploy/kubernetes``; skips where neither it nor kubectl is installed."""
    tool = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    if shutil.which(tool[0]) is None:
        pytest.skip("resolving overlays takes kustomize or kubectl, and neither is on the path")
    done = subprocess.run([*tool, str(KUBERNETES / build)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def one(build: str, kind: str) -> dict[str, Any]:
    (found,) = [resource for resource in resolved(build) if resource["kind"] == kind]
    return found


def cluster_of(build: str) -> dict[str, Any]:
    """The specification of its Ray cluster."""
    is_job = build.startswith("jobs/")
    found: dict[str, Any] = one(build, "RayJob")["spec"]["rayClusterSpec"] if is_job else one(build, "RayCluster")["spec"]
    return found


def groups_of(build: str) -> dict[str, dict[str, Any]]:
    """Its worker groups by their names, and the head."""
    cluster = cluster_of(build)
    return {"head": cluster["headGroupSpec"], **{group["groupName"]: group for group in cluster["workerGroupSpecs"]}}


def pods_of(build: str) -> dict[str, dict[str, Any]]:
    """The template of each pod that KubeRay starts."""
    pods = {name: group["template"] for name, group in groups_of(build).items()}
    return pods | ({"submitter": one(build, "RayJob")["spec"]["submitterPodTemplate"]} if build.startswith("jobs/") else {})


def amount(quantity: str | int | float) -> float:
    """A Kubernetes quantity as a number: bytes, CPUs, or a count."""
    text = str(quantity)
    digits = text.rstrip("KMGTim")
    return float(digits) * SUFFIXES[text[len(digits) :]]


def node(group: dict[str, Any]) -> dict[str, Any]:
    """What Ray would say of a pod of this group, see ``ray.nodes()``: KubeRay takes its resources from the limits."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    units = {"CPU": math.ceil(amount(limits["cpu"])), "GPU": amount(limits.get("nvidia.com/gpu", 0))}
    return {"Alive": True, "Labels": group["labels"], "Resources": units}


def nodes(build: str, size: str) -> list[dict[str, Any]]:
    """The nodes of its cluster when each group has ``size``: minReplicas, replicas or maxReplicas."""
    groups = groups_of(build)
    return [node(group) for name, group in groups.items() for _ in range(1 if name == "head" else group[size])]


def kuberay_schema(kind: str) -> dict[str, Any]:
    """KubeRay's published schema of a kind, which refuses unknown keys here, as ``kubectl --validate=strict`` does."""
    folder = os.environ.get("KUBERAY_SCHEMAS")
    if not folder:
        pytest.skip("not checked against KubeRay's schemas: KUBERAY_SCHEMAS names no folder that has them")
    path = Path(folder) / f"ray.io_{kind.lower()}s_v1.json"
    assert path.is_file(), f"KUBERAY_SCHEMAS names {folder}, which has no {path.name}"
    schema: dict[str, Any] = json.loads(path.read_text())
    for part in _objects(schema):
        if part.get("properties") and not part.get("x-kubernetes-preserve-unknown-fields"):
            part.setdefault("additionalProperties", False)
    return schema


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from _objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _objects(value)
