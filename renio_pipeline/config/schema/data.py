"""The sections of the data: one source or several, and how their records are read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveInt,
)

from renio_pipeline.config.layouts import PRESETS, FieldName, Preset
from renio_pipeline.config.paths import UserPath
from renio_pipeline.config.schema.prompts import Prompts
from renio_pipeline.config.schema.values import Section


def _as_texts(values: Any) -> Any:
    return [str(value) for value in (values if isinstance(values, (list, tuple)) else [values])]


Only = Annotated[tuple[str, ...], BeforeValidator(_as_texts), Field(min_length=1)]


class Source(Section):
    """Where rows come from."""

    path: UserPath | None = Field(
        None, description="JSON Lines, JSON, CSV, Parquet, a folder of them, or a hub name; null: the task makes its own."
    )
    subset: str | None = Field(None, description="Configuration of the data set, for a hub name or a folder laid out like one.")
    split: str = Field("train", description="Split of the data set, for a hub name or a folder.")
    fields: dict[FieldName, str] = Field(
        default_factory=dict,
        description="The source's names for our fields, where they differ; a.b is field b of the object a.",
    )
    only: dict[str, Only] = Field(
        default_factory=dict,
        description="Read only the rows whose field has this value, or one of these: `{data_source: openai/gsm8k}`.",
    )
    preset: Preset | None = Field(
        None, description="The layout of a published data set or framework; `fields` takes precedence."
    )

    @property
    def names(self) -> dict[FieldName, str]:
        """The source's name for each field that the preset or the user gives one."""
        return {**(PRESETS[self.preset] if self.preset else {}), **self.fields}


class ProblemSource(Source):
    """Where training and held-out problems come from."""

    problems: PositiveInt = Field(4096, description="Training problems that a generating task makes.")
    held_out_path: UserPath | None = Field(
        None, description="Held-out problems for evaluation, when `path` is given; the same fields as `path`."
    )
    held_out_split: str | None = Field(None, description="Split of held_out_path; null: the value of `split`.")


class MixedSource(ProblemSource):
    """One of several sources, whose problems are mixed by weight."""

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="What metrics, samples and row ids call it; null: the name of its file, folder or task.",
    )
    weight: NonNegativeFloat = Field(1.0, description="Its share of the prompts is weight / sum of weights; 0: it is left out.")
    task: UserPath | None = Field(None, description="The task of its problems; null: the run's `task`.")
    task_options: dict[str, Any] | None = Field(
        None, description="Keyword arguments of the task's constructor; null: the run's, where the task is the run's too."
    )
    teacher: str | None = Field(
        None,
        description="Which of `teachers` scores its responses; null: the one that each row names.",
    )
    prompts: Prompts | None = Field(None, description="The section `prompts` for its problems alone; null: the run's.")


class OffPolicy(Section):
    """A share of each batch that the student did not write (the λ of GKD, arXiv 2306.13649)."""

    share: float = Field(
        0.0, ge=0, lt=1, description="Share of the samples whose responses are not the student's; 0: none, strictly its own."
    )
    source: Literal["solution", "teacher"] = Field(
        "solution", description="What these are: the row's reference solution, or a response that its teacher writes."
    )


class Data(ProblemSource):
    """Where training and held-out problems come from."""

    sources: tuple[MixedSource, ...] | None = Field(
        None, description="Several sources instead of `path`, mixed by weight, each with its own task and teacher."
    )
    off_policy: OffPolicy = OffPolicy()
    max_prompt_tokens: PositiveInt | None = Field(
        None, description="Leave out, and count, rows with a longer prompt; null: a prompt that does not fit is an error."
    )
    changed: Literal["refuse", "continue"] = Field(
        "refuse",
        description="A resume on other data than the run has read: refuse, or continue with the rows that were not drawn yet.",
    )
    chat_template: str | None = Field(
        None, description="Which of the chat templates, where the student's tokenizer has several; null: the default one."
    )
    student_prompt: Literal["chat", "plain"] = Field(
        "chat", description="chat: the student's chat template; plain: the template without its special tokens."
    )
