"""The sections of learning from the verifier: the method GRPO, and the reward beside a distillation."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from renio_pipeline.config.schema.values import Method, Section

Baseline = Literal["group", "batch", "none"]
Scale = Literal["group", "batch", "none"]
TeacherWhen = Literal["always", "incorrect", "unsolved_group"]


class Grpo(Method):
    """Learning from the verifier's rewards alone, each relative to the rewards of the same problem's other responses.

    Group relative policy optimisation (arXiv 2402.03300): the ``samples_per_prompt`` responses to a problem are its group.
    There is no teacher, unless ``objective.kl`` holds the student near its first weights.
    """

    type: Literal["grpo"] = "grpo"
    scale: Scale = Field(
        "group",
        description="What divides advantages: the standard deviation of the group's rewards, or of the batch's; none: nothing.",
    )
    passes: PositiveInt = Field(
        1, description="Optimizer steps on each batch; from the second one on, importance ratios differ from 1 and are clipped."
    )

    needs_verdicts: ClassVar[bool] = True
    sections: ClassVar[dict[str, dict[str, Any]]] = {"objective": {"type": "clipped"}, "weighting": {"type": "uniform"}}

    def check(self, config: Any) -> None:
        if config.samples_per_prompt == 1:
            raise ValueError(
                "method grpo compares the responses to one problem with each other, and with samples_per_prompt 1 every "
                "advantage is 0; set samples_per_prompt to 4 or more, and batch_size to a multiple of it"
            )
        if config.filter != "all":
            raise ValueError(
                f"method grpo compares the correct and the incorrect responses to a problem, and filter {config.filter} keeps "
                "one kind alone; set filter=all"
            )
        if config.sampling.temperature != config.temperature:
            raise ValueError(
                f"method grpo: sampling.temperature ({config.sampling.temperature}) must equal temperature "
                f"({config.temperature}), at which log-probabilities are computed: importance ratios are those of the policy "
                "that wrote the responses; set both to the same value"
            )
        if config.student_logprobs != "generator":
            raise ValueError(
                "method grpo: importance ratios are towards the generator's log-probabilities; leave student_logprobs out"
            )
        if config.weighting.type != "uniform" or config.weighting.after_pivotal != 1:
            raise ValueError(
                f"method grpo: weighting {config.weighting.type} is made of a teacher's log-probabilities, and method grpo "
                "has none; leave the section weighting out, or set method.type=opd"
            )
        if config.reward.coefficient:
            raise ValueError(
                "reward.coefficient adds rewards to a distillation, and method grpo learns from nothing but rewards; leave the "
                "section reward out, or set method.type=opd"
            )
        if config.objective.type not in ("clipped", "custom"):
            raise ValueError(
                f"objective {config.objective.type} does not learn from rewards, and method grpo learns from nothing else; set "
                "objective.type=clipped, or leave it out"
            )
        self._check_teacher(config)

    def _check_teacher(self, config: Any) -> None:
        if config.teachers is not None or config.teacher.model not in (None, config.student) or config.teacher.adapter:
            key = "teachers" if config.teachers is not None else "teacher"
            raise ValueError(
                f"{key}: method grpo has no teacher (with objective.kl its place is taken by the student's first weights); "
                f"leave {key} out, or set method.type=opd with reward.coefficient to learn from a teacher and from rewards"
            )
        if config.teacher.end_tokens or config.teacher.tokenizer != "same":
            key = "teacher.end_tokens" if config.teacher.end_tokens else "teacher.tokenizer"
            raise ValueError(
                f"{key}: with objective.kl the student's own first weights are the reference, which has the student's tokens; "
                f"leave {key} out"
            )


class Reward(Section):
    """The verifier's rewards beside a distillation: loss = distillation + coefficient · policy gradient."""

    coefficient: NonNegativeFloat = Field(
        0.0, description="What the policy gradient counts beside the distillation; 0: nothing."
    )
    baseline: Baseline = Field(
        "group",
        description="What is subtracted from a reward: the mean of its problem's responses, or of the batch; none: nothing.",
    )
    teacher_when: TeacherWhen = Field(
        "always",
        description="Which responses learn from the teacher: all, those that are not correct, or those to problems that none "
        "of the responses solves.",
    )

    def check(self, config: Any) -> None:
        """Raises ValueError for a configuration that this section cannot work with."""
        if not self.coefficient:
            if self.teacher_when != "always":
                raise ValueError(
                    f"reward.teacher_when {self.teacher_when}: the other responses would learn from nothing, because "
                    "reward.coefficient is 0; set it, or filter=incorrect to train on those alone"
                )
            return
        if config.sampling.temperature != config.temperature:
            raise ValueError(
                f"reward.coefficient: sampling.temperature ({config.sampling.temperature}) must equal temperature "
                f"({config.temperature}), at which log-probabilities are computed: a policy gradient is that of the policy "
                "that wrote the responses; set both to the same value"
            )
        if self.baseline == "group" and config.samples_per_prompt == 1:
            raise ValueError(
                "reward.baseline group: with samples_per_prompt 1 a reward is its own baseline, and every advantage 0; set "
                "samples_per_prompt to 4 or more, or reward.baseline=batch"
            )
        if self.teacher_when == "unsolved_group" and config.samples_per_prompt == 1:
            raise ValueError(
                "reward.teacher_when unsolved_group: with samples_per_prompt 1 a group is one response; set samples_per_prompt "
                "to 4 or more, or reward.teacher_when=incorrect"
            )
        if config.filter != "all":
            raise ValueError(
                f"reward.coefficient: filter {config.filter} keeps responses of one verdict, whose rewards are all equal; set "
                "filter=all, and reward.teacher_when=incorrect to distil on those alone"
            )
