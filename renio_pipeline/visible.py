"""Text of rows, models and users as a terminal and a log may show it."""

from __future__ import annotations

import re

# Controls other than the tab and the end of a line, and the characters that turn the direction of text around.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """``text`` with its control characters written as escapes (``\\x1b``).

    So no row can move a cursor, rename a terminal, hide a part of a line, or forge one.
    """
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
