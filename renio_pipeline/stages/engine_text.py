"""Metrics of an engine in another process, as text that can be put together without being parsed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

EngineText = dict[str, tuple[str, str]]  # by name: its # lines, and its samples


def engine_text(registry: Collector, prefix: str, labels: Mapping[str, str]) -> EngineText:
    """The metrics of ``registry`` whose names begin with ``prefix``, with ``labels`` added to each sample.

    Without the times at which counters began, which would be half of the text.
    """
    found: EngineText = {}
    for metric in registry.collect():
        if metric.name.startswith(prefix) and not metric.name.endswith("_created"):
            lines = generate_latest(_One(_labelled(metric, labels)), escaping="allow-utf-8").decode().splitlines(keepends=True)
            head = "".join(line for line in lines if line.startswith("#"))
            found[metric.name] = (head, "".join(line for line in lines if not line.startswith("#")))
    return found


def together(texts: Iterable[EngineText]) -> str:
    """One page of several engines: each metric's ``#`` lines once, and every engine's samples below them."""
    heads: dict[str, str] = {}
    samples: dict[str, list[str]] = {}
    for text in texts:
        for name, (head, lines) in text.items():
            heads.setdefault(name, head)
            samples.setdefault(name, []).append(lines)
    return "".join(heads[name] + "".join(lines) for name, lines in samples.items())


def answered(run: str, answers: Mapping[tuple[str, str], bool]) -> str:
    """``renio_engine_up``, by pool and replica."""
    family = GaugeMetricFamily("renio_engine_up", "1: the replica's engine said its metrics", labels=["run", "pool", "replica"])
    for (pool, replica), up in answers.items():
        family.add_metric([run, pool, replica], float(up))
    return generate_latest(_One(family)).decode()


def _labelled(metric: Metric, labels: Mapping[str, str]) -> Metric:
    more = Metric(metric.name, metric.documentation, metric.type)
    more.samples = [s._replace(labels={**s.labels, **labels}) for s in metric.samples if not s.name.endswith("_created")]
    return more


class _One(Collector):
    """A registry of one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family
