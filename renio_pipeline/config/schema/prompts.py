"""The sections of the prompts' texts and of the chat template's variables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
)

from renio_pipeline.config.paths import expanded
from renio_pipeline.config.schema.values import Section

Audience = Literal["student", "reasoning", "teacher", "evaluation"]


PLACEHOLDER = r"(?<![\\\w}])\{([a-z_]+)\}"  # not the braces of TeX, as in \\boxed{answer}


def _text_or_file(text: Any) -> Any:
    """``@prompts/teacher.txt`` is replaced by what that file has."""
    if not isinstance(text, str) or not text.startswith("@"):
        return text
    path = Path(expanded(text[1:]))
    try:
        found = path.read_text(encoding="utf-8")
        return f"\n{found}" if found.startswith("@") else found  # a run's record has the text, and is read again
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); @ at the start of a text names a file") from None


Text = Annotated[str, BeforeValidator(_text_or_file)]


def _with(*placeholders: str) -> Any:
    def check(text: str) -> str:
        for name in re.findall(PLACEHOLDER, text):
            if name not in placeholders:
                allowed = ", ".join(f"{{{one}}}" for one in placeholders)
                raise ValueError(f"{{{name}}} is no placeholder here; allowed: {allowed}")
        if "{problem}" not in text:
            raise ValueError("the text has no {problem}, so that every row would be asked the same")
        return text

    return Annotated[Text, AfterValidator(check)]


class Prompts(Section):
    """How problems are asked. A text that starts with @ names a file that has it."""

    system: Text | None = Field(None, description="A system message before the others; null: none.")
    student: _with("problem", "instruction") | None = Field(  # type: ignore[valid-type]
        None, description="The student's user message, with {problem} and {instruction}; null: the task's own."
    )
    teacher: _with("problem", "instruction", "solution", "reasoning") | None = Field(  # type: ignore[valid-type]
        None,
        description="The same for a teacher that is shown the {solution}: `method.privileged`, or OPSD; null: the task's own. "
        "{reasoning}: the analysis of `method.reason_first`.",
    )
    reasoning: _with("problem", "instruction", "solution") | None = Field(  # type: ignore[valid-type]
        None,
        description="`method.reason_first`: asks the teacher for its analysis of the {solution}; null: in words of our own.",
    )
    evaluation: _with("problem", "instruction") | None = Field(  # type: ignore[valid-type]
        None, description="The user message of held-out problems and of `renio eval`; null: as the student is asked."
    )
    instruction: Text | None = Field(
        None,
        description="What {instruction} stands for, and what follows the problem where `student` is null; null: the task's.",
    )


class TemplateOptions(Section):
    """Variables of the chat template, such as `enable_thinking: false`, for each of those who are asked."""

    student: dict[str, Any] = Field(default_factory=dict, description="For the student's training prompts.")
    teacher: dict[str, Any] = Field(default_factory=dict, description="For a teacher that is shown the solution.")
    reasoning: dict[str, Any] = Field(
        default_factory=dict, description="For a teacher that is asked for an analysis: `method.reason_first`."
    )
    evaluation: dict[str, Any] = Field(default_factory=dict, description="For held-out problems and `renio eval`.")
