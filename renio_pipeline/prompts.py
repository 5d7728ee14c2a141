"""From a task's rows to prompt token ids, and the cursor that draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.tasks import Task
from renio_pipeline.types import Prompt, Row


class Encoder:
    """Renders a row with the tokenizer's chat template, once; from here on there are only token ids."""

    def __init__(self, tokenizer: Any, task: Task, *, plain: bool) -> None:
        self._tokenizer, self._task, self._plain = tokenizer, task, plain

    def encode(self, rows: Sequence[Row], *, privileged: bool = False, thinking: bool | None = None) -> list[np.ndarray]:
        """[P] int32 of each row. ``plain`` leaves the template's special tokens out of the student's prompt, as the
        reference did.

        Args:
            privileged: with the row's reference solution, for a teacher.
            thinking: the template's thinking mode, where it knows one; None leaves it to the template.
        """
        if not rows:
            return []
        messages = self._task.privileged_messages if privileged else self._task.messages
        mode = {} if thinking is None else {"enable_thinking": thinking}
        texts = [
            self._tokenizer.apply_chat_template(messages(row), add_generation_prompt=True, tokenize=False, **mode)
            for row in rows
        ]
        if self._plain and not privileged:
            special = sorted(self._tokenizer.all_special_tokens, key=len, reverse=True)
            for token in special:
                texts = [text.replace(token, "") for text in texts]
        encoded = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [np.asarray(ids, np.int32) for ids in encoded]


class Cursor:
    """Draws samples in an order that the seed fixes; its whole state is ``position``, the samples drawn so far.

    A row gives ``samples_per_prompt`` consecutive samples; every pass over the rows has its own shuffle. The sample id is
    the position, so it is unique in the run.
    """

    def __init__(
        self,
        prompt_ids: Sequence[np.ndarray],
        rows: Sequence[Row],
        config: RunConfig,
        position: int = 0,
        teacher_ids: Sequence[np.ndarray] | None = None,
    ) -> None:
        self._prompt_ids, self._rows = prompt_ids, rows
        self._teacher_ids = prompt_ids if teacher_ids is None else teacher_ids
        self._seed, self._repeat = config.seed, config.samples_per_prompt
        self.position = position

    def take(self, count: int) -> list[Prompt]:
        """The next ``count`` samples."""
        taken = range(self.position, self.position + count)
        self.position += count
        return [self._prompt(sample_id) for sample_id in taken]

    def _prompt(self, sample_id: int) -> Prompt:
        epoch, place = divmod(sample_id // self._repeat, len(self._rows))
        index = int(self._order(epoch)[place])
        return Prompt(
            sample_id=sample_id,
            row=self._rows[index],
            student_ids=self._prompt_ids[index],
            teacher_ids=self._teacher_ids[index],
        )

    def _order(self, epoch: int) -> np.ndarray:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch, self._permutation = (
                epoch,
                np.random.default_rng([self._seed, epoch]).permutation(len(self._rows)),
            )
        return self._permutation


def held_out_prompts(prompt_ids: Sequence[np.ndarray], rows: Sequence[Row]) -> list[Prompt]:
    """Prompts for evaluation: negative ids, so that they are never taken for a training sample."""
    return [
        Prompt(sample_id=-1 - i, row=row, student_ids=ids, teacher_ids=ids)
        for i, (row, ids) in enumerate(zip(rows, prompt_ids, strict=True))
    ]


def check_lengths(
    prompt_ids: Sequence[np.ndarray], rows: Sequence[Row], limit: int, max_response_tokens: int, model: str
) -> int:
    """The longest prompt. Raises ConfigError if one leaves too little of ``limit``, the model's context, for a response."""
    longest = max(range(len(rows)), key=lambda i: len(prompt_ids[i]))
    tokens = len(prompt_ids[longest])
    if tokens + max_response_tokens + 1 > limit:
        raise ConfigError(
            f"max_response_tokens: the prompt of row {rows[longest].id!r} has {tokens} tokens; with max_response_tokens "
            f"({max_response_tokens}) and one more for scoring it exceeds the context of {model}, {limit}; lower "
            "max_response_tokens or leave the row out"
        )
    return tokens
