"""A list of chat messages as a problem: the last message asks, and the others stand before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from renio_pipeline.data.messages import keys_of

Context = tuple[tuple[str, str], ...]  # (role, content) of each message before the last
_ROLES = {"human": "user", "gpt": "assistant"}


def asked(messages: Sequence[Mapping[str, Any]]) -> tuple[str, Context]:
    """The last message's text, and what was said before it.

    Raises:
        ValueError: the last message is not the user's, or one is not text. The message follows "field 'x' ".
    """
    role, content = keys_of(messages[0])
    said = [(_ROLES.get(str(m.get(role)), str(m.get(role))), _text(m.get(content), i)) for i, m in enumerate(messages)]
    *before, (last, problem) = said
    if last != "user":
        raise ValueError(
            f"ends with a message of {last}, and the student is to answer a message of the user; leave the messages after that "
            "one out"
        )
    return problem, tuple(before)


def _text(content: Any, index: int) -> str:
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in content]
        if all(isinstance(part, str) for part in parts):
            return "".join(map(str, parts))
        raise ValueError(f"has other parts than text in its message {index}, and the models here read text alone")
    if not isinstance(content, str):
        raise ValueError(f"has no text in its message {index}")
    return content
