"""Fields that are a list of chat messages, where text is meant."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from renio_pipeline.config.layouts import FieldName

_KEYS = (("role", "content"), ("from", "value"))
_ASSISTANT = ("assistant", "gpt")


def messages_in(value: Any) -> Sequence[Mapping[str, Any]]:
    """The messages that a value is a list of, as objects or as their text; empty if it is anything else."""
    if isinstance(value, str):
        value = read_list(value) if value.startswith("[{") else None
    if not isinstance(value, list) or not value:
        return ()
    return value if all(keys_of(message) for message in value) else ()


def about_messages(name: str, messages: Sequence[Mapping[str, Any]], field: FieldName) -> str:
    """That the field called ``name`` is a list of messages, and what to write for our ``field`` instead."""
    role, content = keys_of(messages[0])
    roles = [str(message.get(role)) for message in messages]
    index = next((i for i, said in enumerate(roles) if said in _ASSISTANT), len(roles) - 1)
    return (
        f"field {name!r} is a list of messages (of {', '.join(dict.fromkeys(roles))}), and {field} must be text, of which the "
        f"chat template makes messages; write the text that is meant, such as {name}[{index}][{content!r}], into a field of "
        "its own"
    )


def keys_of(message: Any) -> tuple[str, ...]:
    """The keys of the role and of the content of a message; empty if it is none."""
    return next((keys for keys in _KEYS if isinstance(message, dict) and message.keys() >= {*keys}), ())


def read_list(text: str) -> Any:
    """The list that a text is in JSON, or as Python prints it, which is what pandas writes into a CSV file."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None
