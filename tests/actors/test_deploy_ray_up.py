"""The files for ``ray up``, read by Ray's own cluster launcher as far as it goes without a cloud or machines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from actors.cluster.checks import check_cluster
from actors.cluster.node_labels import check_nodes
from renio_pipeline.config import load
from tests.deploy.manifests import ROOT

FOLDER = ROOT / "deploy" / "ray-up"
FILES = sorted(FOLDER.glob("*.yaml"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def prepared(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = prepare_config(yaml.safe_load(path.read_text()))
    return values


@every_file
def test_rays_launcher_takes_it_and_would_notice_a_misspelt_key(path: Path) -> None:
    values = prepared(path)
    validate_config(values)
    with pytest.raises(Exception, match="max_wrokers"):
        validate_config(values | {"max_wrokers": 3})


@every_file
def test_every_node_starts_with_a_token_and_the_dashboard_listens_to_its_own_machine_alone(path: Path) -> None:
    values = yaml.safe_load(path.read_text())
    heads, workers = values["head_start_ray_commands"], values["worker_start_ray_commands"]
    for command in (heads[-1], workers[-1]):
        assert "RAY_AUTH_MODE=token" in command
    assert "--dashboard-host=127.0.0.1" in heads[-1]
    assert "RAY_AUTH_TOKEN=" not in path.read_text()  # it is a file
    (waits,) = re.findall(r"RAY_JOB_STOP_WAIT_TIME_S=(\d+)", heads[-1])
    assert int(waits) > load(ROOT / "configs/gpu.yaml").checkpoint.grace_seconds


@pytest.mark.parametrize("size", ["min_workers", "max_workers"])
def test_the_clouds_machines_hold_a_run_in_which_each_pool_scales_by_itself(size: str) -> None:
    config = load([ROOT / "configs/gpu.yaml", ROOT / "deploy/labels.yaml"])
    kinds = prepared(FOLDER / "aws.yaml")["available_node_types"]
    nodes = [
        {"Alive": True, "Labels": kind["labels"], "Resources": kind["resources"]}
        for name, kind in kinds.items()
        for _ in range(1 if name == "head" else kind[size])
    ]
    check_nodes(config, nodes)
    check_cluster(config, {unit: sum(n["Resources"].get(unit, 0) for n in nodes) for unit in ("CPU", "GPU")})
    for pool in ("generator", "teacher", "trainer"):
        gpus = sum(n["Resources"].get("GPU", 0) for n in nodes if n["Labels"]["pool"] == pool)
        assert size == "min_workers" or gpus >= config.pool(pool).replicas
