"""How a problem is asked: in the task's own words, or in those of the configuration's section ``prompts``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from renio_pipeline.config.schema import PLACEHOLDER, Audience, Prompts, TemplateOptions
from renio_pipeline.tasks.protocol import Task, shown_solution
from renio_pipeline.types import Row

Messages = list[dict[str, str]]
ASKED = "{problem}\n\n{instruction}"  # the student's text where only an instruction is given
REASONING = """Problem: {problem}

A reference solution of this problem:
{solution}

Analyse this solution for someone who will solve the problem without seeing it. Say what the problem asks for, which ideas the
solution rests on and why each of its steps follows, where one could go wrong, and how the result can be checked. Write down no
other solution, and do not repeat this one line by line."""
ANALYSED = "Your own analysis of the reference solution:\n{reasoning}"


class Phrasing:
    """The messages of a task's rows, and the variables of the chat template that renders them."""

    def __init__(
        self,
        task: Task,
        prompts: Prompts | None = None,
        options: TemplateOptions | None = None,
        of_sources: Mapping[str, Prompts] | None = None,
        reasoning: str = "",
    ) -> None:
        """
        Args:
            of_sources: the section that a source of several has instead of ``prompts``, by its name.
            reasoning: what stands in a teacher's prompt in the place of its analysis, where none is given.
        """
        self._task, self._prompts, self._options = task, prompts or Prompts(), options or TemplateOptions()
        self._of_sources = of_sources or {}
        self._reasoning = reasoning

    def variables(self, audience: Audience) -> dict[str, Any]:
        """What the configuration tells the chat template: ``{"enable_thinking": False}``."""
        return dict(getattr(self._options, audience))

    def messages(self, row: Row, audience: Audience, reasoning: str | None = None) -> Messages:
        """The chat messages for a row: what was said before, and the problem. A teacher is shown the row's reference solution.

        ``prompts.system`` takes the place of the row's own system messages. A row's ``teacher_prompt`` is used as it stands, in
        place of what a teacher would be told otherwise.

        Args:
            reasoning: the teacher's analysis of the solution; empty: there is none.
        """
        prompts = self._of_sources.get(row.source or "", self._prompts)
        context = row.context
        if audience == "teacher" and row.teacher_prompt:
            *earlier, (role, content) = row.teacher_prompt
            context, found = tuple(earlier), [{"role": role, "content": content}]
        elif audience == "teacher":
            found = self._taught(prompts, row, self._reasoning if reasoning is None else reasoning)
        elif audience == "reasoning":
            found = [{"role": "user", "content": self._filled(prompts.reasoning or REASONING, prompts, row)}]
        elif (text := _asked_text(prompts, audience)) is not None:
            found = [{"role": "user", "content": self._filled(text, prompts, row)}]
        else:
            found = self._task.messages(row)
        before = [{"role": role, "content": content} for role, content in context]
        if prompts.system is not None:
            before = [{"role": "system", "content": prompts.system}, *(m for m in before if m["role"] != "system")]
        return [*before, *found]

    def _taught(self, prompts: Prompts, row: Row, reasoning: str) -> Messages:
        if prompts.teacher is not None:
            return [{"role": "user", "content": self._filled(prompts.teacher, prompts, row, reasoning)}]
        if (text := _asked_text(prompts)) is not None:
            found = shown_solution([{"role": "user", "content": self._filled(text, prompts, row)}], row)
        else:
            found = self._task.privileged_messages(row)
        if not reasoning:
            return found
        *before, last = found
        return [*before, {**last, "content": f"{last['content']}\n\n{ANALYSED.format(reasoning=reasoning)}"}]

    def _filled(self, text: str, prompts: Prompts, row: Row, reasoning: str = "") -> str:
        values = {"problem": row.problem, "solution": row.solution or "", "reasoning": reasoning}
        values["instruction"] = self._instruction(row) if prompts.instruction is None else prompts.instruction
        return re.sub(PLACEHOLDER, lambda found: values[found[1]], text).strip()

    def _instruction(self, row: Row) -> str:
        own = getattr(self._task, "instruction_for", None)
        return (own(row) if own else None) or ""


def _asked_text(prompts: Prompts, audience: Audience = "student") -> str | None:
    if audience == "evaluation" and prompts.evaluation is not None:
        return prompts.evaluation
    return ASKED if prompts.student is None and prompts.instruction is not None else prompts.student
