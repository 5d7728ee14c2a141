"""How the metrics of ``renio_pipeline.metrics.registry`` are exported to Prometheus: their names and types."""

from __future__ import annotations

from renio_pipeline.metrics.registry import METRICS, source_quantity

# Amounts of one step; their sum over steps is a counter of the run.
COUNTED = (
    "tokens/generated",
    "tokens/scored",
    "tokens/trained",
    "filter/drawn",
    "grading/given_up",
    "sync/bytes",
    "payload/bytes",
)
# ``time/NAME`` of these form one histogram with the stage as label. The other times are not stages, or can be negative.
STAGES = ("first_response", "generate", "score", "weigh", "train", "turns", "turn_back", "sync", "sync_wait")
SHARES = (
    "filter/kept",
    "response/truncated",
    "tokens/padding",
    "reward/accuracy",
    "reward/mean",
    "reward/silent",
    "reward/taught",
    "policy/clipped",
    "eval/accuracy",
    "pivotal/tokens_after",
    "pivotal/loss_after",
    "adaptive/recovery",
    "adaptive/recovery_low",
    "adaptive/recovery_high",
    "adaptive/share",
    "topk/overlap",
    "topk/teacher_mass",
)

SOURCE_SHARES = ("accuracy", "pivotal", "eval_accuracy")


def stage_of(name: str) -> str | None:
    """The stage whose time the metric is, if it is one.

    >>> stage_of("time/train")
    'train'
    """
    kind, _, stage = name.partition("/")
    return stage if kind == "time" and stage in STAGES else None


def idle_pool(name: str) -> str | None:
    kind, _, pool = name.partition("/")
    return pool if kind == "idle" else None


def is_live(name: str) -> bool:
    """Whether the pools themselves report it at any time, under their own names, so that the step's value is not needed."""
    return name.startswith("pool/")


def is_gauge(name: str) -> bool:
    """Whether it is exported as a gauge: only the latest value matters."""
    return not (name in COUNTED or stage_of(name) or idle_pool(name) or is_live(name) or name == "time/step")


def prometheus_name(name: str) -> str:
    """The metric's name by Prometheus' conventions: the base unit at the end, followed by ``_total`` for a counter.

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
    if (found := source_quantity(name)) is not None:
        quantity, unit = found[1], "ratio" if found[1] in SOURCE_SHARES else ""
        return f"renio_source_{quantity}" + (f"_{unit}" if unit else "")
    unit = "ratio" if name in SHARES else METRICS[name][0] if name in METRICS else ""
    base = "renio_" + name.replace("/", "_")
    base = f"{base}_{unit}" if unit in ("seconds", "bytes", "ratio") and not base.endswith(unit) else base
    return f"{base}_total" if name in COUNTED else base
