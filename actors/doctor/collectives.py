"""NCCL between GPUs of the cluster, or gloo where there are none: pairs of processes, on one node and between nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import ray
from ray._private.state import available_resources_per_node

from actors.doctor.rank import collective
from actors.doctor.remote import gather, pinned, reason
from renio_pipeline.doctor.facts import Collective, Node

Pair = tuple[Node, Node]


def run(
    nodes: Sequence[Node], examiners: Mapping[str, Any], env: Mapping[str, str], seconds: float
) -> tuple[tuple[Collective, ...], tuple[str, ...]]:
    """Results of the nodes that run pools, and the names of those whose GPUs are taken. ``env``: of the trainer's ranks."""
    usable = [node for node in nodes if node.pools and node.id in examiners]
    on_gpus = [node for node in usable if node.wants_gpus]
    free = available_resources_per_node() if on_gpus else {}
    busy = [node for node in on_gpus if free.get(node.id, {}).get("GPU", 0.0) < min(2, int(node.gpus))]
    backend = "nccl" if on_gpus else "gloo"
    found: list[Collective] = []
    for pairs in rounds([node for node in on_gpus if node not in busy] if on_gpus else usable, gpus=bool(on_gpus)):
        found += _round(pairs, backend, examiners, env, seconds)
    return tuple(found), tuple(node.name for node in busy)


def rounds(nodes: Sequence[Node], *, gpus: bool) -> list[list[Pair]]:
    """Pairs of nodes, in rounds within which no node has two pairs: each node with itself, and with its successor.

    A node is not paired with itself if it has one GPU alone, or if it has none and other nodes are there.
    """
    alone = [(node, node) for node in nodes if (node.gpus >= 2 if gpus else len(nodes) == 1)]
    chain = list(pairwise(nodes))
    return [pairs for pairs in (alone, chain[::2], chain[1::2]) if pairs]


def _round(
    pairs: Sequence[Pair], backend: str, examiners: Mapping[str, Any], env: Mapping[str, str], seconds: float
) -> list[Collective]:
    ports = gather({pair[0].id: examiners[pair[0].id].free_port.remote() for pair in pairs}, seconds)
    asked = {}
    for i, pair in enumerate(pairs):
        port = ports[pair[0].id]
        if isinstance(port, Exception):
            continue
        for rank, node in enumerate(pair):
            needs = {"num_gpus": int(backend == "nccl"), "runtime_env": {"env_vars": dict(env)}, "max_retries": 0}
            task = ray.remote(collective).options(**pinned(node.id), **needs)
            asked[i, rank] = task.remote(rank, backend, pair[0].address, port, seconds)
    answers = gather(asked, seconds + 5.0)  # torch gives up first, and says why
    for key, answer in answers.items():
        if isinstance(answer, TimeoutError):
            ray.cancel(asked[key], force=True)
    return [_result(backend, pair, [answers.get((i, rank)) for rank in (0, 1)], ports) for i, pair in enumerate(pairs)]


def _result(backend: str, pair: Pair, answers: Sequence[Any], ports: Mapping[str, Any]) -> Collective:
    names = (pair[0].name, pair[1].name)
    failed = [each for each in (ports[pair[0].id], *answers) if isinstance(each, Exception)]
    if failed:
        return Collective(backend=backend, nodes=names, error=reason(failed[0]))
    first, second = answers
    return Collective(
        backend=backend,
        nodes=names,
        correct=first["correct"] and second["correct"],
        bandwidth=first["bandwidth"],
        devices=next((each["devices"] for each in answers if each["devices"] != 1), 1),
    )
