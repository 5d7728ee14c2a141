"""Every check that can be made before an engine starts. Begin with ``prepare``.

``models.py`` looks at student and teachers, ``prompts.py`` renders what they are asked, ``payload.py`` counts what comes back;
``prepared.py`` is what comes of it. ``offline.py`` checks what a machine without a network can know, ``folders.py`` the run's
directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.schema import DTYPE_BYTES
from renio_pipeline.data.chat_templates import check_variables, choose_template, end_warning
from renio_pipeline.data.problems import problems_of
from renio_pipeline.data.prompt_lengths import Bounds, check_end_token
from renio_pipeline.data.prompts import Cursor
from renio_pipeline.data.settling import settle
from renio_pipeline.data.solutions import OFF_POLICY, Solutions
from renio_pipeline.data.template_clock import TemplateClock
from renio_pipeline.models import info
from renio_pipeline.models.files import end_ids
from renio_pipeline.preflight.models import Inspect, end_tokens_of, student_of, teacher_of, teacher_warnings
from renio_pipeline.preflight.payload import check_payload, payload_token_bytes, top_k_key
from renio_pipeline.preflight.prepared import Prepared
from renio_pipeline.preflight.prompts import encoded, encoder_of, other_tokenizers, recorded_clock
from renio_pipeline.run_dir.checkpoint_files import ResumePoint
from renio_pipeline.stages.recorded_inputs import MOST_CHECKED, check_prompts, check_vocab_size, open_recordings
from renio_pipeline.tasks import make_task
from renio_pipeline.types import Prompt, Row

__all__ = ["Prepared", "prepare", "settled"]


def prepare(config: RunConfig, inspect: Inspect = info.inspect, clock: str | None = None) -> Prepared:
    """Check a configuration against its models and data.

    Args:
        inspect: reads a model by (name, key); for hub names the caller may run it on another node.
        clock: the time that the chat template is told, ISO 8601; None: that of the run's recordings, or else now.

    Raises:
        ConfigError: names the key, what was given and what is allowed.
    """
    task = make_task(*config.task_recipe)
    training, held_out = problems_of(config, task)
    student = student_of(config, inspect)
    if config.sync.backend == "ipc" and config.sync.packed_bytes:
        info.check_packed_bytes(config.student, config.sync.packed_bytes, DTYPE_BYTES[config.generator.dtype])
    recordings = open_recordings(config, student)
    teachers = dict.fromkeys(recordings, student) | {
        name: teacher_of(config, name, student, inspect) for name in config.live_teachers
    }
    alike = {name: model for name, model in teachers.items() if name not in config.own_tokenizers}
    vocab_size = min(
        [m.vocab_rows for m in (student, *alike.values())] + [each.manifest.vocab_size for each in recordings.values()]
    )
    check_vocab_size(config, recordings, vocab_size)
    if (k := config.objective.payload.top_k) >= vocab_size:
        raise ConfigError(f"{top_k_key(config)}: {k} must be below the vocabulary's {vocab_size} entries")
    tokenizer = info.read_tokenizer(config.student, "student")
    choose_template(tokenizer, config.data.chat_template, config.student, "student")
    check_end_token(tokenizer, vocab_size)
    limit = min([student, *alike.values()], key=lambda m: m.context)
    bounds = Bounds(
        context=limit.context,
        model=limit.name,
        max_response_tokens=config.max_response_tokens,
        max_prompt_tokens=config.data.max_prompt_tokens,
        vocab_size=vocab_size,
    )
    stands = TemplateClock(clock or recorded_clock(config, recordings, tokenizer.chat_template))
    check_variables(tokenizer, config.template if alike else config.template.model_copy(update={"teacher": {}}))
    encoder = encoder_of(config, task, tokenizer, stands)
    data = encoded(config, encoder, training, held_out, bounds, tokenizer)
    others = other_tokenizers(config, task, encoder, student, teachers, tokenizer, stands, data)
    if config.on_solutions:
        data["notes"] = (*data["notes"], _epochs(config, len(data["rows"])))
    if note := stands.note(tokenizer.chat_template, config.student):
        data["notes"] = (*data["notes"], note)
    if warning := end_warning(tokenizer, end_ids(info.resolve(config.student), tokenizer), config.student):
        data["notes"] = (*data["notes"], warning)
    pairs = {name: end_tokens_of(config, name, student, model) for name, model in alike.items()}
    data["notes"] = (*data["notes"], *teacher_warnings(config, tokenizer, student, alike, pairs))
    token_bytes = {name: payload_token_bytes(config, name, model.hidden_size) for name, model in teachers.items()}
    scored = config.batch_size * config.teachers_of_a_sample
    payload_bytes = scored * config.max_response_tokens * max(token_bytes.values(), default=0)
    check_payload(config, payload_bytes)
    check_prompts(config, recordings, _drawn(config, data) if recordings else ())
    return Prepared(
        task=task,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        payload_token_bytes=token_bytes,
        end_tokens=pairs,
        payload_bytes=payload_bytes,
        solutions=_solutions(config, tokenizer, vocab_size, data["rows"]),
        clock=stands.at,
        other_tokenizers=others,
        recordings=recordings,
        **data,
    )


def settled(config: RunConfig, prepared: Prepared, point: ResumePoint) -> Prepared:
    """With the order in which the run in ``config.directory`` draws its rows from ``point`` on. Raises as ``settle`` does."""
    found = settle(config, prepared.stretch, point.state.samples_drawn)
    return replace(prepared, stretch=found.stretch, notes=(*prepared.notes, *found.notes))


def _drawn(config: RunConfig, data: Mapping[str, Any]) -> Iterator[Prompt]:
    """The samples that a run draws, as far as they are looked at before it starts. ``data``: fields of ``Prepared``."""
    cursor = Cursor(data["prompt_ids"], data["rows"], config, teacher_ids=data["teacher_ids"], stretch=data["stretch"])
    for _ in range(min(config.steps * config.batch_size, MOST_CHECKED)):
        yield from cursor.take(1)


def _solutions(config: RunConfig, tokenizer: Any, vocab_size: int, rows: Iterable[Row]) -> Solutions | None:
    if not config.trains_on_solutions:
        return None
    key = "method.type sft" if config.on_solutions else OFF_POLICY
    found = Solutions(tokenizer, most=config.max_response_tokens, vocab_size=vocab_size, key=key)
    found.check(rows)
    return found


def _epochs(config: RunConfig, rows: int) -> str:
    """How often a run on solutions goes through its problems, which users of other trainers give instead of steps."""
    samples = config.steps * config.batch_size
    return f"{config.steps} steps of {config.batch_size} are {samples / rows:.3g} epochs of {rows} problems"
