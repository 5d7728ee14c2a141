"""What a client counts of its servers, as Prometheus collects it. A server is named by host and port; no label has a key."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class Figures:
    """The figures of one replica, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._up = Gauge("renio_server_up", "1: the server answers, and may teach", ["server"], registry=self.registry)
        self._flight = Gauge("renio_server_in_flight", "requests at the server", ["server"], registry=self.registry)
        self._done = Counter("renio_server_answers", "requests that the server answered", ["server"], registry=self.registry)
        self._seconds = Counter("renio_server_seconds", "time of answered requests", ["server"], registry=self.registry)
        self._failed = Counter(
            "renio_server_failures", "requests that were sent again or given up", ["server", "why"], registry=self.registry
        )

    def up(self, server: str, up: bool) -> None:
        self._up.labels(server).set(float(up))

    def in_flight(self, server: str, count: int) -> None:
        self._flight.labels(server).set(count)

    def answered(self, server: str, seconds: float) -> None:
        self._done.labels(server).inc()
        self._seconds.labels(server).inc(seconds)

    def failed(self, server: str, why: str) -> None:
        """``why``: away, busy, refused or unusable."""
        self._failed.labels(server, why).inc()
