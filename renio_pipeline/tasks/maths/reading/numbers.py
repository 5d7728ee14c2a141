"""Plain numbers, exactly: integers, decimals, fractions, mixed numbers, repeating decimals, powers of ten."""

from __future__ import annotations

import re
from fractions import Fraction

from renio_pipeline.tasks.maths.answers import Based, Number, Power

MOST_DIGITS = 20_000  # of a power that is written out
_MOST_BITS = int(MOST_DIGITS * 3.33)
_DECIMAL = r"(?:\d+\.?\d*|\.\d+)"
_SIGNS = re.compile(r"[+\-\s]*")
_PLAIN = re.compile(_DECIMAL)
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\{(\d+)\}")
_FRACTION = re.compile(rf"(?:(\d+)\s*)?\\frac\{{\s*([+-]?\s*{_DECIMAL})\s*\}}\{{\s*([+-]?\s*{_DECIMAL})\s*\}}")
_SLASHED = re.compile(rf"(?:(\d+)\s+)?({_DECIMAL})\s*/\s*({_DECIMAL})")
_SCIENTIFIC = re.compile(rf"(?:({_DECIMAL})\s*(?:\\times|\\cdot|\*)\s*)?(10|\d+)\s*\^\{{\s*([+-]?\s*\d{{1,18}})\s*\}}")
_BASED = re.compile(
    r"\(?\s*([0-9A-Za-z]+)\s*\)?\s*(?:_\s*\{?\s*\(?\s*(?:\\text\{\s*)?(?:base\s*-?\s*)?(\d{1,2}|[a-z]+)\s*\}?\s*\)?\s*\}?|"
    r"\(?\s*(?:\\text\{)?\s*\(?\s*(?:in\s+)?base[\s-]*\}?\s*(\d{1,2}|[a-z]+)\s*\)?\s*\}?\s*\)?)"
)
_PREFIXED = re.compile(r"0([xob])([0-9a-f]+)", re.IGNORECASE)  # as in programs
_BASES = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "sixteen": 16, "binary": 2, "octal": 8, "decimal": 10, "hexadecimal": 16,
}  # fmt: skip


def plain_number(text: str) -> Number | Power | None:
    """The number that a normal text is; None if it is none of these forms."""
    signs = _SIGNS.match(text)
    assert signs is not None  # it may be empty
    rest = text[signs.end() :].strip()
    found = _unsigned(rest)
    if found is None or signs[0].count("-") % 2 == 0:
        return found
    if isinstance(found, Power):
        return Power(-found.factor, found.base, found.exponent)
    return Number(-found.value, found.places)


def based_number(text: str) -> Based | None:
    """Digits with their base: ``2516_8``, ``(1A)_{16}``, ``101 base 2``."""
    if prefixed := _PREFIXED.fullmatch(text):
        return Based(prefixed[2].lstrip("0").upper() or "0", {"x": 16, "o": 8, "b": 2}[prefixed[1].lower()])
    found = _BASED.fullmatch(text)
    if not found or not re.match("[0-9A-Fa-f]", found[1]):
        return None
    named = found[2] or found[3]
    base = int(named) if named.isdigit() else _BASES.get(named, 0)
    digits = found[1].upper()
    symbol = not re.search("[0-9]", digits) and (base != 16 or len(digits) < 2)  # with an index: a_1
    if symbol or not 2 <= base <= 36 or (base < 11 and not digits.isdigit()):
        return None
    return Based(digits.lstrip("0") or "0", base)


def value_of(number: Based) -> Fraction | None:
    """The value; None where a digit does not belong to the base."""
    value = 0
    for digit in number.digits:
        if (worth := int(digit, 36)) >= number.base:
            return None
        value = value * number.base + worth
    return Fraction(value)


def _unsigned(text: str) -> Number | Power | None:
    if _PLAIN.fullmatch(text):
        return _decimal(text)
    if found := _REPEATING.fullmatch(text):
        return Number(repeating(*found.groups()))
    if found := _FRACTION.fullmatch(text) or _SLASHED.fullmatch(text):
        above, below = (_decimal(re.sub(r"\s", "", part)).value for part in found.groups()[1:])
        if not below or (found[1] and not (above.denominator == below.denominator == 1 and above >= 0 and below > 0)):
            return None
        return Number(_integer(found[1] or "0") + above / below)
    if found := _SCIENTIFIC.fullmatch(text):
        factor = _decimal(found[1]) if found[1] else Number(Fraction(1))
        return _times_power(factor, _integer(found[2]), int(found[3].replace(" ", "")))
    return None


def _decimal(text: str) -> Number:
    sign = -1 if text.startswith("-") else 1
    whole, _, decimals = text.lstrip("+-").partition(".")
    value = Fraction(_integer(whole + decimals or "0"), 10 ** len(decimals))
    return Number(sign * value, len(decimals) if decimals else None)


def _integer(digits: str) -> int:
    """``int`` of any length, in blocks: Python refuses long ones."""
    value = 0
    for at in range(0, len(digits), 4000):
        block = digits[at : at + 4000]
        value = value * 10 ** len(block) + int(block)
    return value


def repeating(whole: str, start: str, block: str) -> Fraction:
    """The value of a decimal whose digits ``block`` repeat, after the decimals ``start``."""
    shown = Fraction(_integer(whole + start or "0"), 10 ** len(start))
    return shown + Fraction(_integer(block), (10 ** len(block) - 1) * 10 ** len(start))


def _times_power(factor: Number, base: int, exponent: int) -> Number | Power | None:
    if abs(exponent) * max(1, base.bit_length()) > _MOST_BITS:
        return _power(factor.value, base, exponent) if base > 1 else None
    if not base and exponent < 1:
        return None
    value = factor.value * Fraction(base) ** exponent
    shown = factor.places - exponent if factor.places is not None and base == 10 else None
    return Number(value, shown)


def _power(factor: Fraction, base: int, exponent: int) -> Power | Number:
    """In one form: 4^{5000000} is 2^{10000000}, and 25*10^{1000000} has no other factor of ten."""
    if not factor:
        return Number(factor)
    for root in range(base.bit_length() - 1, 1, -1):
        smaller = round(base ** (1 / root)) if base < 1 << 53 else 0
        if smaller > 1 and smaller**root == base:
            base, exponent = smaller, exponent * root
            break
    while factor.numerator % base == 0:
        factor, exponent = factor / base, exponent + 1
    while factor.denominator % base == 0:
        factor, exponent = factor * base, exponent - 1
    return Power(factor, base, exponent)
