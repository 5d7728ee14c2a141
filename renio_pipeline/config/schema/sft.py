"""The section of learning from the rows' solutions: the method SFT."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from renio_pipeline.config.schema.values import Method


class Sft(Method):
    """Supervised fine-tuning: the student learns the rows' solutions, token by token.

    Nobody writes and nobody scores a response: a run has trainer ranks alone, and generators only where it evaluates
    (`evaluate.problems`, which is 0 here unless it is given).
    """

    type: Literal["sft"] = "sft"

    sections: ClassVar[dict[str, dict[str, Any]]] = {
        "objective": {"type": "nll"},
        "weighting": {"type": "uniform"},
        "evaluate": {"problems": 0},
    }

    def check(self, config: Any) -> None:
        for refused, why in (
            (
                config.objective.payload.kind != "none" and config.objective.type != "clipped",
                f"objective {config.objective.label} learns from a teacher, and method sft has none; set objective.type=nll, "
                "or leave it out (the payload of a class of your own must be NO_TEACHER), or set method.type=opd",
            ),
            (
                config.objective.type not in ("nll", "custom"),
                f"objective {config.objective.type} needs responses by the student, and method sft learns from the rows' "
                "solutions; set objective.type=nll, or leave it out",
            ),
            (
                config.weighting.type != "uniform" or config.weighting.after_pivotal != 1,
                f"method sft: weighting {config.weighting.type} is made of a teacher's log-probabilities, and method sft has "
                "none; leave the section weighting out, or set method.type=opd",
            ),
            (
                config.teachers is not None
                or config.teacher.model is not None
                or config.teacher.adapter is not None
                or config.teacher.type in ("http", "recorded"),
                f"{'teacher' if config.teachers is None else 'teachers'}: method sft has no teacher; leave it out "
                "(teacher.model=null), or set method.type=opd with data.off_policy to learn from a teacher and from solutions",
            ),
            (
                bool(config.reward.coefficient),
                "reward.coefficient: rewards judge the student's own responses, and method sft learns from the rows' "
                "solutions; leave the section reward out, or set method.type=grpo",
            ),
            (
                bool(config.data.off_policy.share),
                "data.off_policy.share is the part of a distillation's batch that solutions are, and method sft learns from "
                "solutions alone; leave it out, or set method.type=opd",
            ),
            (
                config.filter != "all",
                f"filter {config.filter} chooses among the student's own responses by their verdict, which the rows' solutions "
                "have not; set filter=all",
            ),
            (
                config.samples_per_prompt != 1,
                f"samples_per_prompt ({config.samples_per_prompt}): a row has one solution, which would then be "
                "in a batch that many times; set samples_per_prompt=1",
            ),
            (
                config.temperature != 1,
                f"temperature ({config.temperature}) would divide the logits of which method sft takes the cross-entropy; "
                "leave temperature out (evaluate.temperature is that of the evaluation)",
            ),
            (
                config.student_logprobs != "generator",
                "student_logprobs: log-probabilities are for weights, and method sft has none; leave it out",
            ),
            (
                bool(config.max_staleness),
                f"max_staleness ({config.max_staleness}) lets generators write ahead of the trainer, and method sft trains on "
                "what nobody has to write; leave it out",
            ),
            (
                config.placement == "colocated" and not config.evaluate.problems,
                "placement colocated: without evaluate.problems method sft has no generators to share GPUs with; leave it out",
            ),
        ):
            if refused:
                raise ValueError(why)
