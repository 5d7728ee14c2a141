"""What a user may have meant by a word that is not allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CUTOFF = 0.5  # of difflib's ratio


def nearest(word: object, known: Iterable[str]) -> str | None:
    """The word of ``known`` that is most like ``word``, whatever its case; None if there is none like it, or it is no text."""
    if not isinstance(word, str):
        return None
    by_lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=CUTOFF)
    return by_lower[found[0]] if found else None


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """``did you mean ...?`` if there is a word like it, otherwise all that is allowed."""
    known = list(known)
    near = nearest(word, known)
    return f"did you mean {near}?" if near else f"allowed: {', '.join(known) or 'none'}"


def choice(word: object, known: Iterable[str]) -> str:
    """The same for a short list, of which every word is named."""
    known = list(known)
    near = nearest(word, known)
    return f"{f'did you mean {near}? ' if near else ''}allowed: {', '.join(known)}"
