"""What the run learns."""

from __future__ import annotations

from typing import Any

from deploy.grafana.panels import distribution, lines
from deploy.grafana.queries import NATS, RUN, SHARE, gauge, mean, quantile


def learning() -> list[Any]:
    return [
        lines(
            "Loss and divergence", NATS,
            "The weighted loss, and the mean divergence of student and teacher without weights. Rising for long: a lower "
            "trainer.lr.",
            (gauge("renio_loss"), "loss"), (gauge("renio_divergence"), "divergence"),
        ),
        lines(
            "Gradient norm", "short",
            "Before clipping. Always far above trainer.max_grad_norm: the step's length is the clip's alone; lower "
            "trainer.lr.",
            (gauge("renio_grad_norm"), "gradient norm"),
        ),
        lines(
            "Accuracy", SHARE,
            "Share of the step's responses that the verifier calls correct, and held-out accuracy where it was measured.",
            (gauge("renio_reward_accuracy_ratio"), "of the step"), (gauge("renio_eval_accuracy_ratio"), "held out"), maximum=1,
        ),
        lines(
            "Rewards", SHARE,
            "Of runs that learn from the verifier's rewards: their mean, the share of samples whose group has equal rewards, "
            "which teach nothing (near 1: easier or harder problems, or more samples_per_prompt), of tokens whose importance "
            "ratio is clipped (more than a tenth: fewer method.passes, or a lower trainer.lr), and of samples that learn from "
            "the teacher too.",
            (gauge("renio_reward_mean_ratio"), "mean reward"), (gauge("renio_reward_silent_ratio"), "equal in the group"),
            (gauge("renio_policy_clipped_ratio"), "tokens clipped"), (gauge("renio_reward_taught_ratio"), "taught"),
            maximum=1, width=12,
        ),
        lines(
            "Advantages, and divergence from the first weights", "short",
            "Mean size of the advantages of rewards; with objective.kl the divergence in nats per token, whose rise is what "
            "the rewards bought.",
            (gauge("renio_reward_advantage_abs"), "size of advantages"), (gauge("renio_policy_kl"), "divergence, nats"),
            width=12,
        ),
        lines(
            "Response length", "suffix: tokens",
            "Of the interval's responses. A 95th percentile at max_response_tokens: raise it, or see why responses do not "
            "end.",
            (quantile(0.5, "renio_response_length_tokens"), "median"), (quantile(0.95, "renio_response_length_tokens"), "95 %"),
            (mean("renio_response_length_tokens"), "mean"), (gauge("renio_eval_response_tokens"), "held out, mean"),
        ),
        lines(
            "Truncated, kept, padding", SHARE,
            "Responses that reached max_response_tokens; those that the filter kept; the trainer's computed tokens that were "
            "padding (a larger trainer.micro_batch_tokens packs better).",
            (gauge("renio_response_truncated_ratio"), "truncated"), (gauge("renio_filter_kept_ratio"), "kept"),
            (gauge("renio_tokens_padding_ratio"), "padding"), maximum=1,
        ),
        lines(
            "Agreement on the likeliest tokens", SHARE,
            "Of the diagnostics.top_k likeliest tokens of student and teacher: the share in common, and the teacher's "
            "probability of the student's. A mass below a half is an alert: the student writes what the teacher would not, and "
            "the teacher's scores there say little; lower trainer.lr, or a shorter max_response_tokens.",
            (gauge("renio_topk_overlap_ratio"), "in common"),
            (gauge("renio_topk_teacher_mass_ratio"), "teacher's mass on the student's"), maximum=1,
        ),
        lines(
            "Entropy", NATS,
            "Of both distributions at the tokens trained on. A student below a tenth of its teacher is an alert: it no longer "
            "explores; an objective nearer the forward KL (objective.beta), or a lower trainer.lr.",
            (gauge("renio_entropy_student"), "student"), (gauge("renio_entropy_teacher"), "teacher"),
        ),
        lines(
            "Advantage on common tokens", NATS,
            "log p_T - log p_S of the tokens that are likely to both, averaged by p_S. It nears 0 as the student learns; far "
            "below 0 for long: the student is surer than its teacher, as at pivotal tokens.",
            (gauge("renio_topk_advantage"), "advantage"),
        ),
        lines(
            "Mismatch of generator and trainer", NATS,
            "Difference of their log-probabilities on the tokens trained on, and half the pivotal threshold: above it "
            "numerics alone could make tokens pivotal; set student_logprobs trainer.",
            (gauge("renio_mismatch_logprob_abs_mean"), "mean"), (gauge("renio_mismatch_logprob_abs_max"), "largest"),
            (f"{gauge('renio_pivotal_threshold_nats')} / 2", "half the threshold"),
        ),
    ]  # fmt: skip


def weights() -> list[Any]:
    effective = f"{gauge('renio_weights_effective_sample_size')} / {gauge('renio_step_samples')}"
    return [
        distribution(
            "Sample weights", "none",
            "How many samples had which weight; the mean is 1. All in the lowest and the highest cell: a few samples are the "
            "gradient.",
            "renio_sample_weight", RUN,
        ),
        distribution(
            "Log-ratio of student to teacher", "suffix: nats",
            "Of each token; those above the pivotal threshold are pivotal, and the clip bounds what one may count.",
            "renio_log_ratio_nats", RUN,
        ),
        lines(
            "Effective sample size", SHARE,
            "(sum w)² / sum w², as a share of the step's samples. Below a tenth is an alert: lower weighting.clip, or raise "
            "batch_size.",
            (effective, "of the step's samples"), maximum=1, width=6,
        ),
        lines(
            "Pivotal tokens", SHARE,
            "Share of response tokens whose log-ratio is above the pivotal threshold. Near 0: weights no longer tell samples "
            "apart; near 1: the threshold is too low for this pair of models. Shares of tokens, and of the loss without "
            "token factors, after a response's first pivotal token: what weighting.after_pivotal acts on.",
            (gauge("renio_pivotal_fraction"), "pivotal"), (gauge("renio_pivotal_tokens_after_ratio"), "tokens after the first"),
            (gauge("renio_pivotal_loss_after_ratio"), "loss after the first"), maximum=1, width=6,
        ),
        lines(
            "Largest and smallest weight", "none",
            "Of the step; normalised so that the mean is 1. And the mean token factor, which is 1 where a weighting has none.",
            (gauge("renio_weights_max"), "largest"), (gauge("renio_weights_min"), "smallest"),
            (gauge("renio_weights_token_factor_mean"), "mean token factor"), width=6,
        ),
        lines(
            "Do weights know wrong answers?", "none",
            "AUROC of the raw weight as a sign of an answer that is not correct: 0.5 is chance, 1 perfect. Only where tasks "
            "have verifiers.",
            (gauge("renio_weights_auroc"), "AUROC"), maximum=1, width=6,
        ),
        lines(
            "Adaptive weighting", "none",
            "Strength of ReNIO's weights (0: uniform) and the factor after a response's first pivotal token (0: left out), of "
            "weighting adaptive. Always at their start: see whether there are probes in the panel beside it.",
            (gauge("renio_adaptive_strength"), "strength"), (gauge("renio_adaptive_after_pivotal"), "factor"),
            maximum=1, width=12,
        ),
        lines(
            "Recovery of the teacher", SHARE,
            "Wrong responses that the teacher brings to a correct answer from after their first pivotal token, with the 95 % "
            "interval that moves the adaptive weighting; and the tokens it writes for that, of those it scores. No line: no "
            "response was probed; raise weighting.share.",
            (gauge("renio_adaptive_recovery_ratio"), "recovers"), (gauge("renio_adaptive_recovery_low_ratio"), "at least"),
            (gauge("renio_adaptive_recovery_high_ratio"), "at most"), (gauge("renio_adaptive_share_ratio"), "tokens written"),
            width=12,
        ),
    ]  # fmt: skip
