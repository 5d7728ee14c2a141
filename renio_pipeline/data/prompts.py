"""From rows to prompt token ids, and the cursor that draws prompts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, overload

import numpy as np

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.schema import Audience
from renio_pipeline.data.chat_templates import render
from renio_pipeline.data.draw_order import DrawOrder, Order
from renio_pipeline.data.mixing.mixed_order import MixedOrder
from renio_pipeline.data.prints import content_of
from renio_pipeline.data.rows import Rows
from renio_pipeline.data.template_clock import TemplateClock
from renio_pipeline.run_dir.data_record import Stretch
from renio_pipeline.tasks.phrasing import Phrasing
from renio_pipeline.types import Prompt, Row


class Encoder:
    """Renders rows with the tokenizer's chat template; everything after this handles token ids only."""

    def __init__(
        self,
        tokenizer: Any,
        phrasing: Phrasing,
        *,
        plain: Collection[Audience] = (),
        template: str = "student: the chat template",
        clock: TemplateClock | None = None,
    ) -> None:
        """
        Args:
            plain: whose prompts get the template's text without its special tokens, as the student's in the authors' code.
            template: how messages call the template, with the key of its model.
            clock: what the template is told when it asks for the time; None: the time at which this is made.
        """
        self._tokenizer, self._phrasing, self._plain, self._template = tokenizer, phrasing, plain, template
        self._clock = clock or TemplateClock()

    def encode(self, rows: Sequence[Row], audience: Audience = "student", reasoning: str | None = None) -> list[np.ndarray]:
        """The prompt ids of each row, [P] int32.

        Args:
            audience: who is asked. A teacher is shown the row's reference solution.
            reasoning: the teacher's analysis of that; None: what stands in its place.

        Raises:
            ConfigError: the template is broken, or refuses a row's messages.
        """
        if not rows:
            return []
        texts = [self.text(row, audience, reasoning) for row in rows]
        # Not verbose: that a prompt is longer than the model's context is checked, and said with its row.
        encoded = self._tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return [np.asarray(ids, np.int32) for ids in encoded]

    def text(self, row: Row, audience: Audience, reasoning: str | None = None) -> str:
        """The prompt as the model sees it. Raises as ``encode`` does."""
        messages, variables = self._phrasing.messages(row, audience, reasoning), self._phrasing.variables(audience)
        text = render(self._tokenizer, messages, row, self._template, self._clock, **variables)
        if audience in self._plain:
            for token in sorted(self._tokenizer.all_special_tokens, key=len, reverse=True):
                text = text.replace(token, "")
        return text


class Encoded(Sequence[np.ndarray]):
    """The prompt ids of rows, [P] int32 each, encoded on demand; the most recent ones are cached."""

    def __init__(self, encoder: Encoder, rows: Sequence[Row], audience: Audience = "student", more: int = 0) -> None:
        """``more``: tokens that a prompt needs besides these and a response: an analysis that is yet to be written."""
        self.rows, self.more = rows, more
        self._encode = partial(encoder.encode, audience=audience)
        self._one = lru_cache(1024)(lambda index: self._encode([rows[index]])[0])

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        places = range(len(self))[index]
        return self._one(places) if isinstance(places, int) else [self._one(i) for i in places]

    def batches(self, size: int = 512) -> Iterator[list[tuple[Row, np.ndarray]]]:
        """All rows in order with their ids. Encoded in batches, which is much faster, and not cached."""
        for start in range(0, len(self), size):
            rows = [self.rows[i] for i in range(start, min(start + size, len(self)))]
            yield list(zip(rows, self._encode(rows), strict=True))


class Cursor:
    """Draws samples in the order of ``DrawOrder``. Its whole state is ``position``, the number of samples drawn so far.

    Each row gives ``samples_per_prompt`` consecutive samples, and every pass over the rows is shuffled anew. The sample id is
    the position, so it is unique in the run.
    """

    def __init__(
        self,
        prompt_ids: Sequence[np.ndarray],
        rows: Sequence[Row],
        config: RunConfig,
        position: int = 0,
        teacher_ids: Sequence[np.ndarray] | None = None,
        stretch: Stretch | None = None,
    ) -> None:
        """
        Args:
            stretch: the part of the run that ``position`` is in; None: there is one, from the run's start. If it has
                fingerprints, each row that is drawn is compared with its own.

        Raises:
            ConfigError: ``position`` is before the stretch.
        """
        self._prompt_ids, self._rows = prompt_ids, rows
        self._teacher_ids = prompt_ids if teacher_ids is None else teacher_ids
        stretch = stretch or Stretch()
        if position < stretch.start:
            raise ConfigError(
                f"data.path: sample {position} was drawn before the data changed, at sample {stretch.start}; end the run, and "
                "resume it with --resume, which compares the data again"
            )
        seed, repeat = config.seed, config.samples_per_prompt
        mixed = bool(stretch.parts)
        self._order: Order = MixedOrder(seed, repeat, stretch) if mixed else DrawOrder(len(rows), seed, repeat, stretch)
        self._contents = stretch.contents
        self.position = position

    def take(self, count: int) -> list[Prompt]:
        """The next ``count`` samples. Raises ConfigError if a row is not what it was when the run started."""
        taken = range(self.position, self.position + count)
        self.position += count
        return [self._prompt(sample_id) for sample_id in taken]

    def _prompt(self, sample_id: int) -> Prompt:
        index = self._order.index(sample_id)
        row = self._rows[index]
        if len(self._contents) and content_of(row) != self._contents[index]:
            where = self._rows.where(row) if isinstance(self._rows, Rows) else f"row {row.id!r}"
            raise ConfigError(
                f"data.path: {where} is not what it was when the run read it first; give a run a copy of its data that nobody "
                "writes to"
            )
        return Prompt(
            sample_id=sample_id,
            row=row,
            student_ids=self._prompt_ids[index],
            teacher_ids=self._teacher_ids[index],
        )


def held_out_prompts(prompt_ids: Sequence[np.ndarray], rows: Sequence[Row]) -> list[Prompt]:
    """Prompts for evaluation. Their ids are negative, so that they are never mistaken for training samples."""
    return [
        Prompt(sample_id=-1 - i, row=row, student_ids=ids, teacher_ids=ids)
        for i, (row, ids) in enumerate(zip(rows, prompt_ids, strict=True))
    ]
