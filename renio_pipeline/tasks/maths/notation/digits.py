r"""How numbers are set: thousands in groups, decimal commas, repeating decimals, powers of ten.

``1{,}234{,}567``, ``1 234 567``, ``1'234'567``, ``1.234.567`` and ``1,234,567`` are 1234567; ``2.45e6`` is
``2.45\times 10^{6}``. A comma between bare digits is a separator of thousands or of a list, which only its place can tell.
"""

from __future__ import annotations

import re

from renio_pipeline.tasks.maths.notation.scanning import tokens

_BRACED_COMMA = re.compile(r"(?<=\d)\s*\{\s*,\s*\}\s*(?=\d)")
_BRACED_THOUSANDS = re.compile(r"(?<![\d.}])[1-9]\d{0,2}(?:\{,\}\d{3})+(?!\d|\{,\})")
_GROUPS = re.compile(r"(?<![\w.}\\])[1-9]\d{0,2}(?:([ '_])\d{3})(?:\1\d{3})*(?![\d/]|[_']\d|\s*\\frac)")
_DECIMAL_GROUPS = re.compile(r"(?<=\.)(?:\d{3} )+\d{1,3}(?![\d/])")
_DOTTED = re.compile(r"(?<![\d.])[1-9]\d{0,2}(?:\.\d{3}){2,}(?![\d.])")
_EUROPEAN = re.compile(r"(-?\s*[1-9]\d{0,2}(?:\.\d{3})+),(\d{1,2}|\d{4,})")
_THOUSANDS = re.compile(r"(?<![\d.,}])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")
_POWER_OF_TEN = re.compile(
    r"(?<![\w.}])(\d+(?:\.\d*)?|\.\d+)(?:[eE]|\s*\\text\{\s*[eE]\s*\}\s*)([+-]?\d{1,18})(?![\w(]|\.\d|\s*_)"
)
_CROSS = re.compile(r"(?<=[\d.])\s*[xX*]\s*(?=10\s*\^)")
_DOTS_ABOVE = re.compile(r"(?<=\.)(\d*)\\dot\s*(?:\{\s*(\d)\s*\}|(\d))(?:(\d*)\\dot\s*(?:\{\s*(\d)\s*\}|(\d)))?")
_IN_PARENTHESES = re.compile(r"([+-]?\s*\d*\.\d*)\((\d+)\)")
_AND_SO_ON = re.compile(r"(\.\d*?)(?:(\d)\2{2,}|(\d{2,}?)\3+)\s*\\ldots\s*(?=\\?%|$)")


def plain_digits(text: str) -> str:
    """The text with each number in one way, see above."""
    text = _DECIMAL_GROUPS.sub(_joined, _GROUPS.sub(_joined, text))
    text = _DOTTED.sub(_joined, text)
    if found := _EUROPEAN.fullmatch(text):
        text = f"{_joined(found[1])}.{found[2]}"
    text = _without_thousands(text)
    text = _CROSS.sub(r"\\times ", _POWER_OF_TEN.sub(lambda found: rf"{found[1]}\times 10^{{{int(found[2])}}}", text))
    text = _DOTS_ABOVE.sub(_repeating, text)
    if found := _IN_PARENTHESES.fullmatch(text):
        text = rf"{found[1]}\overline{{{found[2]}}}"
    return _AND_SO_ON.sub(lambda found: rf"{found[1]}\overline{{{found[2] or found[3]}}}", text)


def plain_commas(text: str) -> str:
    """``1{,}234`` is 1234, and ``1{,}5`` is 1.5."""
    return _BRACED_THOUSANDS.sub(_joined, _BRACED_COMMA.sub("{,}", text)).replace("{,}", ".")


def decimal_comma(wanted: str, given: str) -> str | None:
    """``3.5`` of a given ``3,5`` where a decimal number is wanted; None elsewhere, where it is a list."""
    found = re.fullmatch(r"([+-]?\d+),(\d+)", given)
    return f"{found[1]}.{found[2]}" if found and re.fullmatch(r"[+-]?\d*\.\d+", wanted) else None


def _joined(found: re.Match[str] | str) -> str:
    return re.sub(r"[^\d+-]", "", found if isinstance(found, str) else found[0])


def _repeating(found: re.Match[str]) -> str:
    before, first, last = found[1], found[2] or found[3], found[5] or found[6] or ""
    return rf"{before}\overline{{{first}{found[4] or ''}{last}}}"


def _without_thousands(text: str) -> str:
    r"""``(1,234)`` is a pair, ``(1,000)`` and ``(1,234, 5)`` are not; outside of brackets ``1,234`` is a number."""
    matches = list(_THOUSANDS.finditer(text))
    if not matches:
        return text
    around = _brackets(text)
    for found in reversed(matches):
        start, end = around[found.start()]
        inside = text[start:end]
        apart = not start or ",0" in found[0] or re.search("[,;]", _THOUSANDS.sub("", inside))
        if apart:
            text = text[: found.start()] + _joined(found) + text[found.end() :]
    return text


def _brackets(text: str) -> dict[int, tuple[int, int]]:
    """For each position the contents of the innermost bracket of a list around it; (0, ...): there is none."""
    whole = (0, len(text))
    around, stack = {}, [whole]
    opened: list[int] = []
    spans: dict[int, int] = {}
    for at, token, _ in tokens(text):
        if token in ("(", "[", r"\{"):
            opened.append(at)
        elif token in (")", "]", r"\}") and opened:
            spans[opened.pop()] = at
    for at, token, _ in tokens(text):
        if at in spans:
            stack.append((at + len(token), spans[at]))
        elif token in (")", "]", r"\}") and len(stack) > 1 and stack[-1][1] == at:
            stack.pop()
        around[at] = stack[-1]
    return around
