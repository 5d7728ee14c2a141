"""Pieces of PromQL, and the units of what they give."""

from __future__ import annotations

RUN = 'run="$run"'
POOLS = 'run="$run", pool=~"$pool"'
RATE = "[$__rate_interval]"
SHARE, SECONDS, BYTES, NATS = "percentunit", "s", "bytes", "suffix: nats"


def rate(counter: str, by: str, where: str = POOLS) -> str:
    return f"sum by ({by}) (rate({counter}{{{where}}}{RATE}))"


def mean(histogram: str, by: str = "run", where: str = RUN) -> str:
    """Of a histogram's values in the interval."""
    return f"{rate(f'{histogram}_sum', by, where)} / {rate(f'{histogram}_count', by, where)}"


def quantile(q: float, histogram: str) -> str:
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', 'le', RUN)})"


def gauge(name: str, where: str = RUN) -> str:
    return f"{name}{{{where}}}"
