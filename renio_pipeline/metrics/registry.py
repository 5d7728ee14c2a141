"""The registry of metrics: every name with its unit and meaning."""

from __future__ import annotations

from collections.abc import Mapping

# name -> (unit, meaning).
METRICS: dict[str, tuple[str, str]] = {
    "loss": ("nats", "weighted loss of the step's global batch"),
    "divergence": ("nats", "mean over samples of the mean divergence of their tokens, unweighted"),
    "grad_norm": ("", "gradient norm before clipping"),
    "lr": ("", "learning rate of the step"),
    "mismatch/logprob_abs_mean": ("nats", "mean |generator - trainer| log-probability of the tokens trained on"),
    "mismatch/logprob_abs_max": ("nats", "largest |generator - trainer| log-probability of the tokens trained on"),
    "weights/max": ("", "largest sample weight"),
    "weights/min": ("", "smallest sample weight"),
    "weights/effective_sample_size": ("samples", "(sum w)^2 / sum w^2"),
    "weights/auroc": ("", "AUROC of the raw weight as a predictor of an incorrect answer"),
    "weights/wrong_over_right": ("", "mean weight of incorrect answers, divided by the mean weight of correct ones"),
    "weights/token_factor_mean": ("", "mean token factor over a response's tokens, and over responses by weight; 1 without"),
    "adaptive/strength": ("", "weighting adaptive: strength λ of ReNIO's weights in the step"),
    "adaptive/after_pivotal": ("", "weighting adaptive: factor γ after the first pivotal token in the step"),
    "adaptive/recovery": ("", "share of wrong prefixes that the teacher still brings to a correct answer, by all evidence"),
    "adaptive/recovery_low": ("", "lower end of its 95 % interval"),
    "adaptive/recovery_high": ("", "upper end of its 95 % interval"),
    "adaptive/probes": ("probes", "evidence behind adaptive/recovery; older evidence fades"),
    "adaptive/share": ("", "tokens that the teacher wrote for the newest probes, as a share of those it scored in their step"),
    "pivotal/fraction": ("", "share of response tokens that are pivotal"),
    "pivotal/tokens_after": ("", "share of response tokens that come after their response's first pivotal token"),
    "pivotal/loss_after": ("", "share of the weighted loss, before token factors, on those tokens"),
    "topk/overlap": ("", "share of the student's k likeliest tokens that are among the teacher's k; k: diagnostics.top_k"),
    "topk/teacher_mass": ("", "teacher's probability of the student's k likeliest tokens; of a top-k teacher at least that"),
    "topk/advantage": ("nats", "log p_T - log p_S of the tokens likely to both, averaged by p_S"),
    "entropy/student": ("nats", "mean entropy of the student's distribution at response tokens"),
    "entropy/teacher": ("nats", "mean entropy of the teacher's, there; of a top-k teacher at least that"),
    "ratio/mean": ("nats", "mean log-ratio of student to teacher, before clipping"),
    "reward/accuracy": ("", "share of the step's responses, kept or not, that the verifier calls correct"),
    "off_policy/fraction": (
        "",
        "share of the samples trained on that the run's student did not write: data.off_policy, recorded",
    ),
    "off_policy/tokens": ("tokens", "mean length of those"),
    "reward/mean": ("", "mean reward of the samples trained on, from 0 to 1"),
    "reward/advantage_abs": ("", "mean size of the samples' advantages: rewards relative to their baseline"),
    "reward/silent": ("", "share of the samples whose group has equal rewards, which say nothing relative to it"),
    "reward/taught": ("", "share of the samples that learn from the teacher too"),
    "policy/clipped": ("", "share of response tokens whose importance ratio is clipped, and has no gradient"),
    "policy/kl": ("nats", "divergence of the student from its first weights per response token, estimated (k3)"),
    "filter/drawn": ("samples", "responses written in the step"),
    "filter/kept": ("", "share of the step's responses that the filter kept"),
    "grading/given_up": ("responses", "responses judged incorrect because no verdict arrived in time"),
    "response/tokens": ("tokens", "mean response length"),
    "response/truncated": ("", "share of responses that reached max_response_tokens"),
    "staleness/max": ("versions", "age of the oldest sample trained on"),
    "tokens/generated": ("tokens", "response tokens written in the step"),
    "tokens/scored": ("tokens", "prompt and response tokens read by the teacher"),
    "tokens/trained": ("tokens", "prompt and response tokens trained on"),
    "tokens/padding": ("", "share of the trainer's computed tokens that were padding"),
    "time/step": ("seconds", "wall time of the step"),
    "time/start": ("seconds", "start of the step to its first prompt; negative if that was sent out in advance"),
    "time/first_response": ("seconds", "first prompt to first response"),
    "time/generate": ("seconds", "first prompt to last response"),
    "time/score": ("seconds", "first response to last score; overlaps time/generate"),
    "time/weigh": ("seconds", "weighting"),
    "time/train": ("seconds", "forward, backward and optimizer step"),
    "time/turns": ("seconds", "with placement colocated: handing the GPUs to the trainer and back"),
    "time/turn_back": ("seconds", "the part of time/turns that hands the GPUs back to the generators"),
    "time/sync": ("seconds", "sending the weights to all generators, with the wait for responses in flight"),
    "time/sync_wait": ("seconds", "the part of time/sync that waits for responses in flight"),
    "time/idle": ("seconds", "of the step that a replica spent idle, averaged over the pools"),
    "idle/generator": ("", "share of the step in which the generators were idle, averaged over replicas"),
    "idle/teacher": ("", "share of the step in which the teachers were idle, averaged over replicas"),
    "idle/trainer": ("", "share of the step in which the trainer ranks were idle; sending weights counts as work"),
    "sync/bytes": ("bytes", "weights published"),
    "sync/version": ("", "version that the generators have after the step"),
    "sync/publish": ("seconds", "writing the host copy of the weights"),
    "sync/receive": ("seconds", "the slowest generator's fetch, before its engine loads the weights"),
    "payload/bytes": ("bytes", "teacher payload of the step"),
    "memory/driver/peak": ("bytes", "peak resident memory of the driver"),
    "pool/generator/size": ("replicas", "generators"),
    "pool/teacher/size": ("replicas", "teachers"),
    "pool/generator/queue": ("samples", "samples waiting for a generator when the step ended"),
    "pool/teacher/queue": ("samples", "samples waiting for a teacher when the step ended"),
    "pool/generator/restarts": ("", "generators replaced so far"),
    "pool/teacher/restarts": ("", "teachers replaced so far"),
    "eval/accuracy": ("", "held-out accuracy, sampled"),
    "eval/response_tokens": ("tokens", "mean held-out response length"),
}

# source/NAME/quantity, of each of ``data.sources``: quantity -> (unit, meaning).
SOURCE_METRICS: dict[str, tuple[str, str]] = {
    "samples": ("samples", "samples of the source that the step trained on"),
    "accuracy": ("", "share of the source's responses, kept or not, that the verifier calls correct"),
    "response_tokens": ("tokens", "mean length of the source's responses"),
    "weight": ("", "mean weight of the source's samples; 1: that of the whole batch"),
    "pivotal": ("", "share of the source's response tokens that are pivotal"),
    "eval_accuracy": ("", "accuracy on the source's held-out problems, sampled"),
}


def of_source(source: str, quantity: str) -> str:
    """The metric's name: ``source/gsm8k/accuracy``."""
    assert quantity in SOURCE_METRICS, quantity
    return f"source/{source}/{quantity}"


def source_quantity(name: str) -> tuple[str, str] | None:
    """The source and the quantity that a metric is of: ``("gsm8k", "accuracy")``; None if it is not of one source."""
    kind, _, rest = name.partition("/")
    source, _, quantity = rest.rpartition("/")
    return (source, quantity) if kind == "source" and source and quantity in SOURCE_METRICS else None


def token_rate(step: Mapping[str, float]) -> float:
    """Tokens a second of a step for people: those that the student wrote; where it writes nothing, those it was trained on."""
    return (step["tokens/generated"] or step.get("tokens/trained", 0.0)) / step["time/step"]


# Counts of this driver so far. They are not part of a step's line, which must not depend on how often the step was done.
TOTALS = {
    "replayed/steps": "steps trained again because a rank was lost",
    "replayed/samples": "samples trained again because a rank was lost",
    "samples/rejected": "samples quarantined",
}
