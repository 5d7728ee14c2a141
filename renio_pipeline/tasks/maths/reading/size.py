"""How large the numbers of a text may become, before anything is evaluated: ``9^{9^{9^9}}`` is never computed."""

from __future__ import annotations

import math
import re

from renio_pipeline.tasks.maths.notation.scanning import argument, end_of_group

MOST_BITS = 1 << 17  # of any number that is computed exactly
MOST_CHARACTERS = 1000  # of an expression
MOST_DEPTH = 12  # of its parentheses: the parser tries each in several ways
_BINOMIAL = re.compile(r"\\binom\{\s*(\d{1,18})\s*\}\{\s*(\d{1,18})\s*\}")
_DIVISORS = re.compile(r"\\(gcd|lcm)\s*\(([\d,\s]{1,200})\)")
_AT_ONCE = re.compile(r"\\(?:gcd|lcm|operatorname|det|Gamma|gamma)(?![a-zA-Z])|matrix\}")
_SMALL_GAMMA = re.compile(
    r"\\[gG]amma(?![a-zA-Z])\s*+(?!\()|\\Gamma\s*\((?:\d{1,3}|\{?\\frac\{\d{1,3}\}\{\d{1,3}\}\}?|[a-zA-Z](?:[+-]\d{1,3})?)\)"
)
_SMALL_MATRIX = re.compile(
    r"\\begin\s*\{[pbvBV]?matrix\}(?:[\d\sa-zA-Z+\-*/^{}&()]|\\\\|\\(?:frac|sqrt|cdot|pi)(?![a-zA-Z])){1,300}?\\end\s*\{\w+\}"
)
_NO_FACTOR = re.compile(r"\^|\\(?!(?:frac|sqrt|cdot|times|pi)(?![a-zA-Z]))")  # of a matrix
_ATOM = re.compile(r"\d+(?:\.\d+)?|\\[a-zA-Z]+|\\.|.", re.DOTALL)


def too_long(text: str) -> bool:
    """Whether an expression is too long or too deep to be parsed."""
    depth = deepest = 0
    for c in text:
        depth += (c in "([{") - (c in ")]}")
        deepest = max(deepest, depth)
    return len(text) > MOST_CHARACTERS or deepest > MOST_DEPTH


def too_large(text: str) -> bool:
    """Whether the numbers of an expression are too large to be computed."""
    return _bits(text) > MOST_BITS


def with_integer_functions(text: str) -> str:
    """Binomials and greatest common divisors of plain integers as their values, where these are small enough."""
    return _DIVISORS.sub(_divisor, _BINOMIAL.sub(_binomial, text))


def evaluates_at_once(text: str) -> bool:
    """Whether the parser would compute a function that may not end: a determinant, a gamma function, binomials of decimals."""
    text = _SMALL_GAMMA.sub("", text)
    around = _SMALL_MATRIX.sub("", text)
    if around != text and _NO_FACTOR.search(around):
        return True
    return _AT_ONCE.search(around) is not None or any(map(_is_large_binomial, re.finditer(r"\\binom", text)))


def _is_large_binomial(found: re.Match[str]) -> bool:
    """Whether a binomial has large numbers in it; or no symbol, so that it is computed, and more than small integers."""
    above, end = argument(found.string, found.end())
    below, _ = argument(found.string, end)
    parts = f"{above} {below}"
    symbols = re.search(r"[a-df-hj-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", parts))  # e and i are numbers
    return re.search(r"\d{4}", parts) is not None or not (symbols or re.fullmatch(r"[\d\s+\-()]*", parts))


def _binomial(found: re.Match[str]) -> str:
    above, below = int(found[1]), int(found[2])
    if min(below, max(0, above - below)) * above.bit_length() > MOST_BITS // 8:
        return found[0]
    return f"({math.comb(above, below)})"


def _divisor(found: re.Match[str]) -> str:
    numbers = [int(number) for number in found[2].split(",") if number.strip()]
    return f"({(math.gcd if found[1] == 'gcd' else math.lcm)(*numbers)})"


def _bits(text: str) -> float:
    """A bound on the bits of the numbers that evaluating the text would meet; symbols count as nothing.

    The bits of all atoms are added, also of a sum's, with one more for each sign. A power multiplies the bits of its base by
    the exponent, and a factorial by itself.
    """
    total = last = 0.0
    at = 0
    while at < len(text):
        if text[at] in "({[":
            end = end_of_group(text, at) or len(text)
            total, last = total + last, _bits(text[at + 1 : end - 1])
            at = end
            continue
        found = _ATOM.match(text, at)
        assert found is not None
        at = found.end()
        if found[0] == "^":
            power, at = argument(text, at)
            exponent = _bits(power)
            last = math.inf if exponent > 60 and last else last * 2.0 ** min(exponent, 60)
        elif found[0] == "!":
            last = last * 2.0 ** min(last, 60)
        elif found[0][0].isdigit():
            total, last = total + last, math.log2(max(1.0, float(found[0]))) if len(found[0]) < 300 else 3.4 * len(found[0])
        elif not found[0].isspace():
            total, last = total + last + (found[0] in "+-"), 0.0
    return total + last
