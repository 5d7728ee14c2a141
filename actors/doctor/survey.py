"""Examine every node of the cluster that this process has joined."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import ray

from actors.cluster.checks import check_cluster
from actors.cluster.node_labels import check_nodes
from actors.doctor import collectives, shared_folder
from actors.doctor.examiner import Examiner
from actors.doctor.nodes import describe
from actors.doctor.probes import software
from actors.doctor.remote import by_value, clock, gather, pinned, reason
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.doctor import nvidia_smi
from renio_pipeline.doctor.facts import Clock, Cluster, Machine, Node, NodeFacts, Reach, Software
from renio_pipeline.doctor.requirements import Requirements
from renio_pipeline.models import info

CONNECT_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Question:
    """What to examine. ``seconds``: how long each answer may take."""

    config: RunConfig | None
    folder: str | None  # the run directory, an absolute path; None: not given
    required: Requirements
    seconds: float


def examine(asked: Question) -> Cluster:
    """All facts. A node that does not answer has the reason in the place of its facts.

    Raises:
        ConfigError: the driver itself cannot write into the run directory.
    """
    config = asked.config
    nodes = describe(config, ray.nodes(), ray.get_runtime_context().get_node_id(), asked.required)
    with _examiners(nodes) as examiners:
        facts = _reports(examiners, asked)
        answering = {id: each for id, each in examiners.items() if isinstance(facts[id], NodeFacts)}
        for id, changes in _more(nodes, answering, asked).items():
            if isinstance(known := facts[id], NodeFacts):
                facts[id] = replace(known, **changes)
        env = config.pools.trainer.env if config else {}
        results, busy = collectives.run(nodes, answering, env, asked.seconds)
    port = config.metrics_port if config else None
    return Cluster(
        nodes=nodes,
        facts=facts,
        driver=Software(**software(asked.required.names)),
        folder=asked.folder,
        metrics_port=port or None,
        metrics_error=_port_error(port) if port else None,
        busy=busy,
        collectives=results,
        payload=config.payload.max_bytes if config else None,
        pools_error=_pools_error(config) if config else None,
    )


@contextmanager
def _examiners(nodes: Sequence[Node]) -> Iterator[dict[str, Any]]:
    """An examiner on each node, by its id; they end with the block."""
    by_value()
    actor = ray.remote(Examiner)
    started: dict[str, Any] = {}
    try:
        for node in nodes:
            started[node.id] = actor.options(**pinned(node.id)).remote(_token(node))
        yield started
    finally:
        for each in started.values():
            ray.kill(each)


def _token(node: Node) -> str:
    return f"renio-doctor-{node.id}"


def _reports(examiners: Mapping[str, Any], asked: Question) -> dict[str, NodeFacts | str]:
    references = {id: each.report.remote(asked.required.names) for id, each in examiners.items()}
    found: dict[str, NodeFacts | str] = {}
    for id, answer in gather(references, asked.seconds).items():
        if isinstance(answer, Exception):
            found[id] = reason(answer)
            continue
        try:
            skew, uncertainty = clock(examiners[id], asked.seconds)
        except ray.exceptions.RayError as error:
            found[id] = reason(error)
            continue
        found[id] = NodeFacts(
            software=Software(**answer["software"]),
            machine=_machine(answer["machine"]),
            clock=Clock(skew=skew, uncertainty=uncertainty),
        )
    return found


def _machine(values: dict[str, Any]) -> Machine:
    report, driver, error = values.pop("nvidia_smi"), None, values.pop("driver_error")
    if report is not None:
        try:
            driver = nvidia_smi.parse(report)
        except ValueError as failure:
            error = str(failure)
    return Machine(**values, driver=driver, driver_error=error)


def _more(nodes: Sequence[Node], examiners: Mapping[str, Any], asked: Question) -> dict[str, dict[str, Any]]:
    """Further fields of ``NodeFacts``, by node id: of the run directory, the models and the ports."""
    pools = {node.id: node for node in nodes if node.id in examiners and node.pools}
    changes: dict[str, dict[str, Any]] = {id: {} for id in examiners}
    if asked.folder is not None:
        concerned = {n.id: examiners[n.id] for n in nodes if n.id in examiners and (n.pools or n.driver)}
        for id, probe in shared_folder.probe(asked.folder, concerned, asked.seconds).items():
            changes[id]["folder"] = probe
    if asked.config is not None:
        wanted = {id: examiners[id].missing.remote(_models(asked.config, node)) for id, node in pools.items()}
        for id, answer in gather(wanted, asked.seconds).items():
            changes[id]["missing_models"] = (reason(answer),) if isinstance(answer, Exception) else tuple(answer)
    for id, reaches in _reaches(pools, examiners, asked.seconds).items():
        changes[id]["reaches"] = reaches
    return changes


def _models(config: RunConfig, node: Node) -> list[tuple[str, str]]:
    """(key, folder) of what the pools of ``node`` load from a folder; those inside of this project are everywhere."""
    loaded = {"generator": ("student", config.student), "trainer": ("student", config.student)}
    for teacher, pool in config.teacher_pools.items():
        if config.all_teachers[teacher].type == "http":
            continue  # its servers have the model
        loaded[pool] = (config.teacher_key(teacher, "model"), config.teacher_model(teacher))
    found = {loaded[pool] for pool in node.pools if pool in loaded}
    return sorted(
        (key, info.resolve(name)) for key, name in found if info.is_local(name) and not name.startswith(info.EMBEDDED)
    )


def _reaches(nodes: Mapping[str, Node], examiners: Mapping[str, Any], seconds: float) -> dict[str, tuple[Reach, ...]]:
    """From each of ``nodes`` to each other."""
    ports = gather({id: examiners[id].listen.remote() for id in nodes}, seconds)
    targets = {
        id: (nodes[id].name, nodes[id].address, port, _token(nodes[id]))
        for id, port in ports.items()
        if not isinstance(port, Exception)
    }
    asked = {
        id: examiners[id].reach.remote([target for other, target in targets.items() if other != id], CONNECT_SECONDS)
        for id in nodes
    }
    answers = gather(asked, seconds + CONNECT_SECONDS * len(targets))
    return {
        id: () if isinstance(answer, Exception) else tuple(Reach(target=t, port=port, error=e) for t, port, e in answer)
        for id, answer in answers.items()
    }


def _port_error(port: int) -> str | None:
    """Why the driver cannot listen on ``port``; None if it can."""
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _pools_error(config: RunConfig) -> str | None:
    try:
        check_cluster(config, ray.cluster_resources())
        check_nodes(config, ray.nodes())
    except ConfigError as error:
        return str(error)
    return None
