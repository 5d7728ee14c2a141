"""The curves of a report, shared by the page and the PNG plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from renio_pipeline.metrics.registry import of_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One plot over steps, with one line per run and metric."""

    id: str
    title: str
    axis: str  # label of the y axis
    metrics: tuple[str, ...]
    names: tuple[str, ...] = ("",)  # names of the metrics, if there are several
    percent: bool = False
    evaluations: str | None = None  # a key of ``evaluations.jsonl`` to draw as well


CURVES = (
    Curve(id="loss", title="Loss", axis="nats", metrics=("loss",)),
    Curve(id="divergence", title="Divergence from the teacher", axis="nats per token", metrics=("divergence",)),
    Curve(
        id="accuracy",
        title="Accuracy",
        axis="correct",
        metrics=("reward/accuracy",),
        percent=True,
        evaluations="accuracy",
        names=("training responses",),
    ),
    Curve(
        id="length",
        title="Response length",
        axis="tokens",
        metrics=("response/tokens",),
        evaluations="response_tokens",
        names=("training responses",),
    ),
    Curve(
        id="effective-sample-size", title="Effective sample size", axis="samples", metrics=("weights/effective_sample_size",)
    ),
    Curve(id="staleness", title="Staleness of the oldest sample", axis="versions", metrics=("staleness/max",)),
    Curve(
        id="pivotal",
        title="Pivotal tokens, and what comes after the first one",
        axis="of all",
        metrics=("pivotal/fraction", "pivotal/tokens_after", "pivotal/loss_after"),
        names=("pivotal tokens", "tokens after", "loss after, without factors"),
        percent=True,
    ),
    Curve(
        id="agreement",
        title="Agreement on the likeliest tokens",
        axis="of all",
        metrics=("topk/overlap", "topk/teacher_mass"),
        names=("common to both", "teacher's mass on the student's"),
        percent=True,
    ),
    Curve(
        id="entropy",
        title="Entropy, and the advantage on common tokens",
        axis="nats",
        metrics=("entropy/student", "entropy/teacher", "topk/advantage"),
        names=("student", "teacher", "advantage"),
    ),
    Curve(
        id="rewards",
        title="Rewards, and whom they tell nothing",
        axis="of all",
        metrics=("reward/mean", "reward/silent", "reward/taught"),
        names=("mean reward", "samples whose group has equal rewards", "samples that learn from the teacher"),
        percent=True,
    ),
    Curve(
        id="policy",
        title="Importance ratios that are clipped",
        axis="of tokens",
        metrics=("policy/clipped",),
        percent=True,
    ),
    Curve(id="policy-kl", title="Divergence from the first weights", axis="nats", metrics=("policy/kl",)),
    Curve(id="grad-norm", title="Gradient norm before clipping", axis="norm", metrics=("grad_norm",)),
    Curve(
        id="truncated",
        title="Truncated at max_response_tokens",
        axis="of responses",
        metrics=("response/truncated",),
        percent=True,
    ),
)


ADAPTIVE = (
    Curve(
        id="adaptive",
        title="Adaptive weighting: strength λ, and factor γ after the first pivotal token",
        axis="λ, γ",
        metrics=("adaptive/strength", "adaptive/after_pivotal"),
        names=("λ", "γ"),
    ),
    Curve(
        id="recovery",
        title="Recovery of the teacher, with its 95 % interval",
        axis="of wrong responses",
        metrics=("adaptive/recovery", "adaptive/recovery_low", "adaptive/recovery_high"),
        names=("recovers", "at least", "at most"),
        percent=True,
    ),
)


def curves_of(sources: Sequence[str], lines: Iterable[Mapping[str, float]]) -> tuple[Curve, ...]:
    """The curves of runs with these ``data.sources`` and lines of metrics, which may have those of weighting ``adaptive``."""
    adaptive = ADAPTIVE if any("adaptive/strength" in line for line in lines) else ()
    return (*CURVES, *adaptive, *source_curves(sources))


def source_curves(sources: Sequence[str]) -> tuple[Curve, ...]:
    """A line for each of ``data.sources``; nothing without them."""

    def of(quantity: str, title: str, axis: str, *, percent: bool = False) -> Curve:
        metrics = tuple(of_source(source, quantity) for source in sources)
        names = tuple(sources)
        return Curve(id=f"source-{quantity}", title=title, axis=axis, metrics=metrics, names=names, percent=percent)

    found = (
        of("accuracy", "Accuracy of each source", "correct", percent=True),
        of("pivotal", "Pivotal tokens of each source", "of its tokens", percent=True),
        of("weight", "Mean weight of each source", "weight"),
    )
    return found if sources else ()


AUROC = Curve(id="auroc", title="Raw weight as a predictor of a wrong answer", axis="AUROC", metrics=("weights/auroc",))
IDLE = Curve(
    id="idle",
    title="Idle share of each pool",
    axis="of the step",
    percent=True,
    metrics=("idle/generator", "idle/teacher", "idle/trainer"),
    names=("generator", "teacher", "trainer"),
)
EVALUATIONS = {"accuracy": "held-out problems, with 95 % interval", "response_tokens": "held-out problems"}
