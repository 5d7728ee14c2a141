"""Teachers with ``tokenizer: own``: their prompts, in their own template and tokens, and how they read responses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from renio_pipeline.alignment.reading import Reader, TextChanged
from renio_pipeline.alignment.retokeniser import Retokeniser
from renio_pipeline.alignment.shared_tokens import shared_tokens
from renio_pipeline.alignment.token_bytes import TokenBytes, token_bytes
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.schema import Audience, TemplateOptions
from renio_pipeline.data.chat_templates import answer_ends, check_variables, choose_template
from renio_pipeline.data.prompt_lengths import Bounds, check_length, check_not_empty, check_vocabulary
from renio_pipeline.data.prompts import Encoded, Encoder
from renio_pipeline.data.template_clock import TemplateClock
from renio_pipeline.models import info
from renio_pipeline.tasks.phrasing import Phrasing
from renio_pipeline.types import Row

ROOM = 2  # a response may take this many times as many of the teacher's tokens as it may have of the student's


@dataclass(frozen=True, kw_only=True)
class OtherTokenizer:
    """What a run needs of one such teacher."""

    retokeniser: Retokeniser
    vocab_size: int  # rows of the teacher's output head
    shared: np.ndarray | None = None  # [rows] see ``shared_tokens``; None: the objective does not ask
    notes: tuple[str, ...] = ()

    @property
    def context(self) -> int:
        """Tokens that its engine holds."""
        return self.retokeniser.context


class TeacherEncoder(Encoder):
    """Renders each row for the teacher that scores it."""

    def __init__(self, student: Encoder, own: Mapping[str, Encoder]) -> None:
        """
        Args:
            student: for the teachers that have the student's tokenizer.
            own: of the others, by name; a single teacher's is empty.
        """
        self._student, self._own = student, dict(own)

    def encode(self, rows: Sequence[Row], audience: Audience = "student", reasoning: str | None = None) -> list[np.ndarray]:
        """See ``Encoder.encode``."""
        places: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(self.teacher(row), []).append(place)
        found: dict[int, np.ndarray] = {}
        for name, own in places.items():
            ids = self._own.get(name, self._student).encode([rows[i] for i in own], audience, reasoning)
            found |= dict(zip(own, ids, strict=True))
        return [found[i] for i in range(len(rows))]

    def teacher(self, row: Row) -> str:
        """The name of the row's teacher."""
        return "" if "" in self._own else row.teacher or ""


def teacher_tokenizer(config: RunConfig, name: str) -> Any:
    """A teacher's own tokenizer, with one chat template. Raises ConfigError."""
    key, model = config.teacher_key(name, "model"), config.teacher_model(name)
    tokenizer = info.read_tokenizer(model, key)
    choose_template(tokenizer, None, model, key)
    if config.privileged:
        check_variables(tokenizer, TemplateOptions(teacher=config.template.teacher))
    return tokenizer


def encoder_for(config: RunConfig, name: str, tokenizer: Any, phrasing: Phrasing, clock: TemplateClock) -> Encoder:
    """What renders prompts in a teacher's own template."""
    key, model = config.teacher_key(name, "model"), config.teacher_model(name)
    return Encoder(tokenizer, phrasing, template=f"{key}: the chat template of {model!r}", clock=clock)


def other_tokenizer(
    config: RunConfig, name: str, tokenizer: Any, student_tokenizer: Any, student: info.ModelInfo, teacher: info.ModelInfo,
    prompts: Encoded,
) -> OtherTokenizer:  # fmt: skip
    """Check one teacher with its prompts.

    Args:
        tokenizer: the teacher's.
        prompts: those that this teacher reads.

    Raises:
        ConfigError: it cannot read the student's texts, a prompt does not fit into its context, or no end of it is known.
    """
    key = config.teacher_key(name, "model")
    bounds = Bounds(
        context=teacher.context,
        model=teacher.name,
        max_response_tokens=config.max_response_tokens,
        max_prompt_tokens=None,
        vocab_size=teacher.vocab_rows,
    )
    longest = 0
    for row, ids in (pair for batch in prompts.batches() for pair in batch):
        check_not_empty(ids, f"row {row.id!r}")
        check_vocabulary(ids, row, tokenizer, teacher.vocab_rows)
        longest = max(longest, check_length(len(ids), row, bounds))
    of_student = _student_bytes(student_tokenizer, config.student)
    reader = Reader(_backend(tokenizer, teacher.name, key), teacher.name, key)
    notes = _read_probes(reader, teacher.name, config.teacher_key(name, "tokenizer"))
    special = {i for i in config.sampling.stop_token_ids if not (i < len(of_student.table) and of_student.table[i])}
    student_ends = student.ends | special
    made = Retokeniser(
        student=of_student,
        reader=reader,
        student_ends=student_ends,
        teacher_ends=_ends(config, name, tokenizer, student, teacher, student_ends),
        context=min(teacher.context, longest + ROOM * config.max_response_tokens + 1),
        name=name,
    )
    if not made.teacher_ends:
        notes += (f"warning: {key}: {teacher.name!r} names no end token, so the student learns nothing about where to end",)
    shared = None
    if (k := config.objective.payload.top_k) > 0:
        if k >= teacher.vocab_rows:
            raise ConfigError(
                f"objective.k: {k} must be below the {teacher.vocab_rows} entries of the teacher {teacher.name!r}"
            )
        ends = _own_ends(made.teacher_ends, student_tokenizer)
        shared = shared_tokens((reader.bytes, teacher.tokens), (of_student, student.tokens), ends, teacher.vocab_rows)
    return OtherTokenizer(retokeniser=made, vocab_size=teacher.vocab_rows, shared=shared, notes=notes)


def _own_ends(teacher_ends: Mapping[int, int], tokenizer: Any) -> dict[int, int]:
    """The student's end for each of the teacher's: of several, the one that the student's template writes."""
    usual = [i for i in (*answer_ends(tokenizer), tokenizer.eos_token_id, *sorted(teacher_ends)) if i in teacher_ends]
    return {teacher_ends[own]: own for own in reversed(usual)}


def _student_bytes(tokenizer: Any, model: str) -> TokenBytes:
    backend = _backend(tokenizer, model, "student")
    found = token_bytes(backend, model, "student")
    for text in info.PROBES:
        ids = backend.encode(text, add_special_tokens=False).ids
        ours = b"".join(found.of(np.array(ids))).decode("utf-8", "replace")
        if ours != (theirs := backend.decode(ids, skip_special_tokens=True)):
            raise ConfigError(
                f"student: the bytes of {model!r}'s tokens are not understood: {theirs!r} would be {ours!r}; choose a teacher "
                "with the student's tokenizer, and tokenizer=same"
            )
    return found


def _backend(tokenizer: Any, model: str, key: str) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ConfigError(
            f"{key}: {model!r} has no tokenizer of the library tokenizers, of which alone tokens' bytes are known"
        )
    return backend


def _read_probes(reader: Reader, model: str, key: str) -> tuple[str, ...]:
    """A note where the teacher changes rare texts. Raises ConfigError where it changes ordinary ones."""
    changed: dict[str, str] = {}
    for text in info.PROBES:
        try:
            reader.read(text.encode())
        except TextChanged as error:
            changed[text] = str(error)
    for text, how in changed.items():
        if text.isascii():
            raise ConfigError(
                f"{key}: own needs a tokenizer that reads texts as they stand, and that of {model!r} changes them: {how}; "
                "choose another teacher"
            )
    return tuple(
        f"warning: the tokenizer of the teacher {model!r} changes some texts: {how}; samples with such are quarantined"
        for how in changed.values()
    )[:1]


def _ends(
    config: RunConfig, name: str, tokenizer: Any, student: info.ModelInfo, teacher: info.ModelInfo, ends: Collection[int]
) -> dict[int, int]:
    """The teacher's end for each of the student's: what ``end_tokens`` says, or else the one that its template writes."""
    key = config.teacher_key(name, "end_tokens")
    given: dict[int, int] = {}
    for own, others in config.all_teachers[name].end_tokens.items():
        pair = []
        for token, who, model, known in ((own, "student", student, ends), (others, "teacher", teacher, teacher.ends)):
            i = next((i for i in known if model.tokens.get(i) == token), None)
            if i is None:
                named = ", ".join(repr(model.tokens.get(i)) for i in sorted(known)) or "nothing"
                raise ConfigError(f"{key}: {token!r} ends no response of the {who}; what does: {named}")
            pair.append(i)
        given[pair[0]] = pair[1]
    written = [i for i in answer_ends(tokenizer) if i in teacher.ends]
    usual = [*written, *([tokenizer.eos_token_id] if tokenizer.eos_token_id in teacher.ends else []), *sorted(teacher.ends)]
    return {own: given.get(own, usual[0]) for own in ends} if usual else given
