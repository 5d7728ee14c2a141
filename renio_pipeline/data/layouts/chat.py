"""A list of chat messages as a problem: the last message asks, and the others stand before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from renio_pipeline.data.messages import keys_of, messages_in

Context = tuple[tuple[str, str], ...]  # (role, content) of each message before the last
_PRESET = ", or set data.preset=chat, which does so and takes the assistant's answer as the solution"
_ROLES = {"human": "user", "gpt": "assistant"}


def asked(messages: Sequence[Mapping[str, Any]]) -> tuple[str, Context]:
    """The last message's text, and what was said before it.

    Raises:
        ValueError: the last message is not the user's, or one is not text. The message follows "field 'x' ".
    """
    role, content = keys_of(messages[0])
    said = [(_role(m.get(role)), _text(m.get(content), i)) for i, m in enumerate(messages)]
    *before, (last, problem) = said
    if last != "user":
        raise ValueError(
            f"ends with a message of {last}, and the student is to answer a message of the user; leave the messages after that "
            f"one out{_PRESET if last == 'assistant' else ''}"
        )
    return problem, tuple(before)


def chat_log(record: Mapping[str, Any]) -> dict[str, Any]:
    """A whole conversation, under ``messages`` or ``conversations``: up to the user's last message, and the answer to that."""
    messages = messages_in(record.get("messages")) or messages_in(record.get("conversations"))
    if not messages:
        return {}
    role, content = keys_of(messages[0])
    users = [i for i, message in enumerate(messages) if _role(message.get(role)) == "user"]
    last = users[-1] if users else len(messages) - 1
    answer = messages[last + 1] if last + 1 < len(messages) else {}
    answered = _role(answer.get(role)) == "assistant" and isinstance(answer.get(content), str)
    return {"messages to answer": list(messages[: last + 1]), "last answer": answer[content] if answered else None}


def ends_with_an_answer(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a conversation is over: nothing in it is left to answer."""
    role, _ = keys_of(messages[-1])
    return _role(messages[-1].get(role)) == "assistant"


def _role(said: Any) -> str:
    return _ROLES.get(str(said), str(said))


def _text(content: Any, index: int) -> str:
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in content]
        if all(isinstance(part, str) for part in parts):
            return "".join(map(str, parts))
        raise ValueError(f"has other parts than text in its message {index}, and the models here read text alone")
    if not isinstance(content, str):
        raise ValueError(f"has no text in its message {index}")
    return content
