"""The student's chat template: which of several, what is said when it fails, and whether answers end as the model ends them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.config.nearest import did_you_mean
from renio_pipeline.config.schema import TemplateOptions
from renio_pipeline.data.template_clock import TemplateClock, fixed_chance
from renio_pipeline.data.template_time import bounded
from renio_pipeline.types import Row

_OWNED = frozenset({"messages", "add_generation_prompt", "continue_final_message", "strftime_now"})
_GLOBALS = frozenset({"raise_exception", "range", "namespace", "dict", "lipsum", "cycler", "joiner", "eos_token", "bos_token"})
Messages = Sequence[Mapping[str, Any]]
_ANSWER, _NEXT = "An answer of nine words that no template contains.", "Another question, which no template contains either."


def choose_template(tokenizer: Any, name: str | None, model: str, key: str) -> None:
    """Make the template called ``name`` the only one of a tokenizer; None: its only one, or the one that is its default.

    Raises:
        ConfigError: there is none, or none of this name, or it is not clear which of several.
    """
    found = tokenizer.chat_template
    if not found:
        raise ConfigError(f"{key}: the tokenizer of {model!r} has no chat template")
    if isinstance(found, dict):
        names = ", ".join(sorted(found))
        if name is None and "default" not in found:
            raise ConfigError(
                f"data.chat_template: the tokenizer of {model!r} has several chat templates, and none is the default; choose "
                f"one of {names}"
            )
        if name is not None and name not in found:
            raise ConfigError(f"data.chat_template: the tokenizer of {model!r} has no chat template {name!r}; it has {names}")
        tokenizer.chat_template = found[name or "default"]
    elif name is not None:
        raise ConfigError(
            f"data.chat_template: {name!r} was chosen, but the tokenizer of {model!r} has a single chat template, without a "
            "name; leave the key out"
        )


def check_variables(tokenizer: Any, options: TemplateOptions) -> None:
    """Raises ConfigError for a variable of the section ``template`` that the chat template does not read.

    Args:
        tokenizer: with one template.
    """
    given = {f"template.{who}.{name}": value for who, variables in options for name, value in variables.items()}
    known = _variables(str(tokenizer.chat_template)) if given else set()
    for key in given:
        name = key.split(".", 2)[2]
        if name in _OWNED:
            raise ConfigError(f"{key}: the pipeline sets {name} itself; leave it out")
        if name not in known and given[key] is not False:  # what there is not need not be turned off
            raise ConfigError(f"{key}: the chat template does not read {name!r}; {did_you_mean(name, sorted(known - _OWNED))}")


def _variables(template: str) -> set[str]:
    from jinja2 import Environment, TemplateError, meta

    try:
        found = meta.find_undeclared_variables(Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template))
    except TemplateError:  # said with its row when it renders, or a tag of transformers' own: then by name
        found = set(re.findall(r"[A-Za-z_]\w*", template))
    return found - _GLOBALS


def render(
    tokenizer: Any, messages: Messages, row: Row, template: str, clock: TemplateClock | None = None, **options: Any
) -> str:
    """The prompt's text.

    Args:
        clock: what the template is told when it asks for the time; None: the time.
        template: how messages call the template, with its key: ``student: the chat template of 'x'``.
        options: variables of the template.

    Raises:
        ConfigError: the template is broken, computes for ever, or refuses these messages; with its own words.
    """
    source = str(tokenizer.chat_template)
    options |= clock.options(source) if clock else {}
    try:
        with fixed_chance(source, row.id), bounded():
            text = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False, **options)
    except Exception as error:  # a template may call anything
        raise ConfigError(f"{template} {_words(error, messages, row)}") from None
    return str(text)


def _words(error: Exception, messages: Messages, row: Row) -> str:
    from jinja2 import TemplateError, TemplateSyntaxError

    kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
    said = kind + " ".join(str(error).split())
    if isinstance(error, TemplateSyntaxError):
        return f"is broken at its line {error.lineno}: {said}; mend the template, or choose another model"
    roles = ", ".join(str(message.get("role")) for message in messages)
    line = "" if row.line is None else f" (line {row.line} of its file)"
    return (
        f"cannot make the prompt of row {row.id!r}{line}, which has messages of {roles}: {said}; mend the template, or have "
        "the task ask in other messages"
    )


def end_warning(tokenizer: Any, end_ids: Collection[int], model: str) -> str | None:
    """A warning if the template ends an answer with none of the tokens that end the model's responses; None otherwise.

    Such a model has learnt to end in a way that nobody waits for, so that every response is as long as it may be.

    Args:
        tokenizer: with one template, that of the model.
        end_ids: the tokens at which generation stops.
    """
    ends = _ends(tokenizer, None)
    if not ends or _meet(tokenizer, ends, end_ids):
        return None
    stops = _named(tokenizer, end_ids)
    return (
        f"warning: the chat template of {model!r} ends an answer with {ends[0].strip()[:80]!r}, and the tokens that end its "
        f"responses are {stops}: responses may all be truncated at max_response_tokens; correct eos_token_id in its "
        "generation_config.json"
    )


def teacher_end_warning(tokenizer: Any, template: str, end_ids: Collection[int], teacher: str, key: str) -> str | None:
    """The same of a teacher's template, and the tokens that end the student's responses; None if one of them ends an answer.

    Such a teacher was trained to end in another way than the student may, and its generation settings do not show it.

    Args:
        tokenizer: the student's, which is the teacher's.
        template: the teacher's.
        end_ids: as the teacher reads them.
        key: the teacher's section.
    """
    ends = _ends(tokenizer, template)
    if not ends or _meet(tokenizer, ends, end_ids):
        return None
    return (
        f"warning: the chat template of the teacher {teacher!r} ends an answer with {ends[0].strip()[:80]!r}, and the "
        f"student's responses end with {_named(tokenizer, end_ids)}: the teacher may expect them to go on there; see "
        f"{key}.end_tokens and sampling.stop_token_ids"
    )


def _ends(tokenizer: Any, template: str | None) -> list[str]:
    """What a template writes after an answer: at the end, and before the next question."""
    asked, answer = {"role": "user", "content": "A question."}, {"role": "assistant", "content": _ANSWER}
    ends = []
    for messages in ([asked, answer], [asked, answer, {"role": "user", "content": _NEXT}]):
        try:
            with bounded():
                text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
        except Exception:  # a template that takes no answers says nothing about their end
            continue
        _, found, end = str(text).partition(_ANSWER)
        if found:
            ends.append(end.partition(_NEXT)[0])
    return ends


def answer_ends(tokenizer: Any) -> list[int]:
    """The token ids with which a tokenizer's one template ends an answer, in the order in which it writes them."""
    return [i for end in _ends(tokenizer, None) for i in tokenizer(end, add_special_tokens=False)["input_ids"]]


def _meet(tokenizer: Any, ends: Sequence[str], end_ids: Collection[int]) -> bool:
    return any(i in end_ids for end in ends for i in tokenizer(end, add_special_tokens=False)["input_ids"])


def _named(tokenizer: Any, end_ids: Collection[int]) -> str:
    return ", ".join(repr(tokenizer.convert_ids_to_tokens(i)) for i in sorted(end_ids)) or "none"
