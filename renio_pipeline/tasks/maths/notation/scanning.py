"""Brackets: where a group ends, and what lies outside of all groups."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|.", re.DOTALL)
_OPEN = {"(", "[", "{", r"\{", r"\langle", r"\lfloor", r"\lceil", r"\begin"}
_CLOSED = {")", "]", "}", r"\}", r"\rangle", r"\rfloor", r"\rceil", r"\end"}


def tokens(text: str) -> Iterator[tuple[int, str, int]]:
    """Commands and characters: where each begins, what it is, and how many brackets are open around it.

    A bracket counts as outside of its own group. Kinds of brackets are not told apart: ``[0, 1)`` is a group.
    """
    depth = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in _CLOSED:
            depth = max(0, depth - 1)
        yield match.start(), token, depth
        if token in _OPEN:
            depth += 1


def end_of_group(text: str, start: int) -> int | None:
    """Where the group that opens at ``start`` ends (after its last bracket); None if it is never closed."""
    for at, token, depth in tokens(text[start:]):
        if at and not depth and token in _CLOSED:
            return start + at + len(token)
    return None


def split(text: str, separator: re.Pattern[str]) -> list[str]:
    """The pieces between separators outside of brackets; the pieces' odd entries are the separators themselves."""
    pieces = []
    begun = skip = 0
    for at, _, depth in tokens(text):
        if at < skip or depth:
            continue
        if found := separator.match(text, at):
            pieces += [text[begun:at].strip(), found[0].strip()]
            begun = skip = max(found.end(), at + 1)
    return [*pieces, text[begun:].strip()]


def balanced(text: str) -> bool:
    """Whether each brace has its partner."""
    depth = 0
    for token in _TOKEN.findall(text):
        depth += (token == "{") - (token == "}")
        if depth < 0:
            return False
    return not depth


def argument(text: str, start: int) -> tuple[str, int]:
    """The argument of a command that LaTeX would read at ``start``, without its braces, and where it ends."""
    while start < len(text) and text[start].isspace():
        start += 1
    if text.startswith("{", start):
        end = end_of_group(text, start) or len(text) + 1
        return text[start + 1 : end - 1], min(end, len(text))
    match = _TOKEN.match(text, start)
    return (match[0], match.end()) if match else ("", start)
