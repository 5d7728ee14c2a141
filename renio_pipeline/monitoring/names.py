"""What the metrics of ``renio_pipeline.metrics.registry`` are called in Prometheus, and which of its kinds they are there."""

from __future__ import annotations

from renio_pipeline.metrics.registry import METRICS

# Of one step each; together they are what the run has done.
COUNTED = (
    "tokens/generated",
    "tokens/scored",
    "tokens/trained",
    "filter/drawn",
    "grading/given_up",
    "sync/bytes",
    "payload/bytes",
)
# ``time/NAME`` of these is one histogram, with the stage as its label. The others are no stages, or can be negative.
STAGES = ("first_response", "generate", "score", "weigh", "train", "turns", "turn_back", "sync", "sync_wait")
SHARES = ("filter/kept", "response/truncated", "tokens/padding", "reward/accuracy", "eval/accuracy")


def stage_of(name: str) -> str | None:
    """
    >>> stage_of("time/train")
    'train'
    """
    kind, _, stage = name.partition("/")
    return stage if kind == "time" and stage in STAGES else None


def idle_pool(name: str) -> str | None:
    kind, _, pool = name.partition("/")
    return pool if kind == "idle" else None


def is_live(name: str) -> bool:
    """Whether the pools themselves say it, at any time and by the pool's own name, so that the step's value is not needed."""
    return name.startswith("pool/")


def is_gauge(name: str) -> bool:
    """Whether its latest value is what there is to say of it."""
    return not (name in COUNTED or stage_of(name) or idle_pool(name) or is_live(name) or name == "time/step")


def prometheus_name(name: str) -> str:
    """A metric's name by Prometheus' rules: the base unit at the end, and ``_total`` after it where it is a counter.

    >>> prometheus_name("sync/publish"), prometheus_name("tokens/trained")
    ('renio_sync_publish_seconds', 'renio_tokens_trained_total')
    """
    if stage_of(name):
        return "renio_stage_seconds"
    if idle_pool(name):
        return "renio_idle_ratio"
    if is_live(name):
        quantity = name.rpartition("/")[2]
        return "renio_pool_restarts_total" if quantity == "restarts" else f"renio_pool_{quantity}"
    unit = "ratio" if name in SHARES else METRICS[name][0] if name in METRICS else ""
    base = "renio_" + name.replace("/", "_")
    base = f"{base}_{unit}" if unit in ("seconds", "bytes", "ratio") and not base.endswith(unit) else base
    return f"{base}_total" if name in COUNTED else base
