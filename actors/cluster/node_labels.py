"""Whether the nodes that a pool's labels select are large enough for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actors.cluster.checks import demands
from renio_pipeline.config import ConfigError, RunConfig


def matches(labels: Mapping[str, str], selectors: Mapping[str, str]) -> bool:
    """Whether ``selectors`` (``pools.*.labels``) select a node with ``labels``, by the rules of Ray itself."""
    return all(_allows(selector, labels.get(key)) for key, selector in selectors.items())


def _allows(selector: str, value: str | None) -> bool:
    positive = selector.removeprefix("!")
    listed = positive.startswith("in(")
    values = positive[3:-1].split(",") if listed else [positive]
    return (value in values) != selector.startswith("!")


def check_nodes(config: RunConfig, nodes: Sequence[Mapping[str, Any]], pools: Sequence[str] | None = None) -> None:
    """Check the nodes that the labels of ``pools`` (None: all) select. See also ``actors.cluster.checks.check_cluster``.

    Args:
        nodes: as returned by ``ray.nodes()``.

    Raises:
        ConfigError: the selected nodes have less than the pool needs.
    """
    live = [node for node in nodes if node["Alive"]]
    for name, demand in demands(config, pools).items():
        selectors = config.pool(name).labels
        if not selectors:
            continue
        allowed = [node for node in live if matches(node["Labels"], selectors)]
        has = {unit: sum(node["Resources"].get(unit, 0.0) for node in allowed) for unit in demand}
        short = [unit for unit, amount in demand.items() if amount > has[unit] + 1e-6]
        if allowed and not short:
            continue
        wanted = ", ".join(f"{key}={selector}" for key, selector in selectors.items())
        lack = "".join(f", {demand[unit]:g} {unit} where those have {has[unit]:g}" for unit in short) if allowed else ""
        raise ConfigError(
            f"pools.{config.pool_key(name)}.labels: {wanted} allows {len(allowed)} of the cluster's {len(live)} nodes, and "
            f"{name} needs {'more' if allowed else 'one'}{lack}; the nodes' labels: {_shown(live, selectors)}"
        )


def _shown(nodes: Sequence[Mapping[str, Any]], keys: Mapping[str, str]) -> str:
    """The nodes' values of these label keys, each combination once."""
    found = {", ".join(f"{key}={node['Labels'].get(key, 'not given')}" for key in keys): None for node in nodes}
    return "; ".join(found) or "none"
