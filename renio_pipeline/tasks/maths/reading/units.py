"""Units at the end of a value, currencies before it, and how the known ones convert.

A unit that only one of two answers has is left out, as in published graders; a percent sign or "million" may also count as a
factor then. Two known units of one dimension are converted: 5 km is not 5 m.
"""

from __future__ import annotations

import re
from fractions import Fraction

from renio_pipeline.tasks.maths.answers import Unit
from renio_pipeline.tasks.maths.reading.unit_table import MODULO, NUMBER, is_known, known_unit

_SIGNS = {
    r"\$": "$", r"\euro": "€", r"\pounds": "£", r"\yen": "¥", r"\rupee": "₹", r"\cent": "¢", r"\%": "%", r"\mu": "μ",
    r"\Omega": "Ω", r"^{\circ}": "°",
}  # fmt: skip
_SIGN = re.compile("|".join(map(re.escape, sorted(_SIGNS, key=len, reverse=True))) + r"(?![a-zA-Z])")
_PREFIX = re.compile(
    r"([+-]?)\s*((?:US|AU|CA|NZ|HK)?\s*\\\$|USD|EUR|GBP|INR|JPY|Rs\.?|\\(?:euro|pounds|yen|rupee))\s*([+-]?)(?=\s*[\d.(\\])"
)
_POWER = r"(?:\s*+\^\s*+\{?\s*+-?\d\s*+\}?)?+"
_COMMAND = r"\\(?:mu|Omega|\$|%|euro|pounds|yen|rupee|cent)(?![a-zA-Z])|\^\{\\circ\}"
_UNIT = rf"(?:\\text\{{[^{{}}]*\}}|{_COMMAND}|[^\W\d_]++\.?+){_POWER}"
_FRACTION = rf"\\frac\{{\s*{_UNIT}\s*\}}\{{\s*{_UNIT}\s*\}}"
_SUFFIX = re.compile(rf"\s*((?:{_FRACTION}|{_UNIT})(?:\s*+(?:(?:/|\\cdot|\\times|-)\s*+)?{_UNIT})*+)\s*")
_PART = re.compile(
    rf"\s*(?:,|(?:\\text\{{\s*)?\band\b\s*\}}?)?\s*(\d+(?:\.\d+)?)\s*(\\text\{{[^{{}}]*\}}|{_COMMAND}|[A-Za-z]++\.?+|'{{1,2}}|\")"
)
_MODULO = re.compile(r"\s*(?:\\pmod\s*\{?|\(\s*(?:\\mod|\\text\{\s*mod\s*\}|mod)\s*)\s*(\w+)\s*[})]?\s*\)?$")
_VALUE_ENDS = re.compile(r"[\d})\]!|.]|\\pi|\\infty|\\ldots|[a-zA-Z](?=\s*\\text)")
_SQUARED = re.compile(r"(?:square|sq\.?) (.+)|(.+?) ?(?:\^2|squared)")
_CUBED = re.compile(r"(?:cubic|cu\.?) (.+)|(.+?) ?(?:\^3|cubed)")
_ANGLE_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")  # whose degrees are no unit of the answer
_MOST_CHARACTERS = 300


def measured(text: str) -> tuple[str, Unit | None]:
    """A normal text without its unit, and the unit; the text as it is where it seems to have none."""
    if found := _PREFIX.match(text):
        rest = found[1] + found[3] + text[found.end() :].strip()
        without, more = measured(rest)
        return (without, more) if more and more.dimension == NUMBER else (without if more else rest, _unit(found[2]))
    if found := _MODULO.search(text):
        return text[: found.start()].strip(), Unit(f"mod {found[1].strip()}", f"{MODULO}{found[1].strip()}")
    if len(text) > _MOST_CHARACTERS or _ANGLE_FUNCTION.search(text):
        return text, None
    for ending in _VALUE_ENDS.finditer(text):
        suffix = _SUFFIX.fullmatch(text, ending.end())
        if suffix and (unit := _accepted(text[: ending.end()], suffix[0])):
            return text[: ending.end()].strip(), unit
    return text, None


def compound(text: str) -> tuple[Fraction, Unit] | None:
    """The sum of values in several units of one dimension, in the smallest of them: 5 feet 3 inches, 30° 15'."""
    parts: list[tuple[Fraction, Unit]] = []
    at = 0
    while at < len(text):
        found = _PART.match(text, at)
        unit = known_unit(found[2]) or _unit(found[2]) if found else None
        if found is None or unit is None or unit.dimension in (None, NUMBER):
            return None
        parts.append((Fraction(found[1]), unit))
        at = found.end()
    dimensions = {unit.dimension for _, unit in parts}
    factors = [unit.factor for _, unit in parts]
    if len(parts) < 2 or len(dimensions) > 1 or sorted(set(factors), reverse=True) != factors:
        return None
    unit = parts[0 if parts[0][1].dimension == "dollar" else -1][1]
    return sum((value * part.factor for value, part in parts), Fraction(0)) / unit.factor, unit


def glued(text: str) -> str | None:
    """``5`` of ``5m``, which is a product unless a plain number was asked for; None for any other text."""
    found = re.fullmatch(r"([+-]?[\d.]*\d)(?:[mghNJWVKLs])", text)
    return found[1] if found else None


def _accepted(value: str, suffix: str) -> Unit | None:
    """The unit that a suffix is; None for symbols: 5x, 3 ab."""
    unit = _unit(suffix)
    if is_known(unit):
        single = len(unit.name) == 1 and unit.name.isalpha() and unit.name.isascii() and "text" not in suffix
        return unit if suffix[0].isspace() or not single else None
    if r"\text" in suffix:
        if not suffix.lstrip().startswith((r"\text", r"\frac")):
            return None  # 2x cm: the value goes on
        return unit if re.search(r"\d|\\pi|\\sqrt|\\infty", value) else None
    if suffix.strip().isalpha() and not suffix.isascii():
        return unit  # 3 and a word of another alphabet
    words = re.findall(r"[A-Za-z]+", suffix)
    if not words or not suffix.replace(" ", "").replace(".", "").isascii():
        return None
    if all(known_unit(word) for word in words):
        return unit if suffix[0].isspace() or len(words[0]) > 1 else None
    spelled = all(len(word) > 2 or known_unit(word) or word in _SMALL for word in words) and max(map(len, words)) > 2
    return unit if spelled and suffix[0].isspace() else None


_SMALL = {"of", "in", "to", "by", "an", "a", "at", "on", "or", "is", "per"}


def _unit(suffix: str) -> Unit:
    name = _SIGN.sub(lambda found: _SIGNS[found[0]], suffix)
    name = re.sub(r"\\frac\{(.*)\}\{(.*)\}", r"\1/\2", re.sub(r"\\text\{([^{}]*)\}", r" \1 ", name))
    name = re.sub(r"\s*(?:/|\bper\b)\s*", "/", re.sub(r"\^\s*\{?\s*(-?\d)\s*\}?", r"^\1", name))
    name = re.sub(r"\s+", " ", name.replace("\\cdot", "·")).strip(" .")
    name = re.sub(r"^(?:°|degrees?) ?([CFcf])(?:elsius|ahrenheit)?$", lambda found: f"°{found[1].upper()}", name)
    for form, power in ((_SQUARED, 2), (_CUBED, 3)):
        if (found := form.fullmatch(name)) and (base := known_unit(found[1] or found[2])) and base.dimension:
            return Unit(name, f"{base.dimension}^{power}", base.factor**power)
    if (first := known_unit(name.split(" ")[0])) and first.dimension == NUMBER:
        return first  # 2.5 million dollars
    return known_unit(name) or Unit(name)
