"""From LaTeX to an expression of sympy, by math-verify's parser."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, parse
from sympy import Expr, MatrixBase, MatrixExpr, Set, nan, preorder_traversal, zoo
from sympy.core.relational import Relational

from renio_pipeline.tasks.maths.notation.scanning import split
from renio_pipeline.tasks.maths.reading.numbers import repeating
from renio_pipeline.tasks.maths.reading.size import evaluates_at_once, too_large, too_long, with_integer_functions

for _name in ("math_verify.parser", "math_verify.grader"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # it warns about the missing timeout, which needs the main thread

_CHANGES = {"basic_latex": False, "units": False, "malformed_operators": False, "nits": False, "boxed": "last"}
_AS_IT_STANDS = replace(LatexExtractionConfig().normalization_config, **_CHANGES)  # typography was removed before
_CONFIG = [LatexExtractionConfig(boxed_match_priority=0, normalization_config=_AS_IT_STANDS)]
_DECIMAL = re.compile(r"(\d*)\.(\d+)|(\d+)\.(?!\d)")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\{(\d+)\}")
_MIXED = re.compile(r"(?<![\w.}])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])")
_SUBSCRIPT = re.compile(r"_\s*(\w)")
_TIMES_GROUP = re.compile(r"(\d)\s*(?=[(\[]|\\lfloor|\\lceil)")
_GROUP_TIMES = re.compile(r"([)\]])\s*(?=\d)")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?|\})\s*\^\{\\circ\}")
_ANGLE_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")
_PRIME = re.compile(r"([a-zA-Z])((?:'|\^\{(?:\\prime\s*)+\})+)")
_NO_EXPRESSION = re.compile(r"\\(?:text|leq|geq|neq|in|ldots|pm|mp|cup|cap)(?![a-zA-Z])|[<>;]")
_SEPARATOR = re.compile("[,=]")


@lru_cache(4096)
def expression(text: str) -> Any | None:
    """The expression (or matrix) that a normal text is, unevaluated and without decimals; None where it is none.

    What is too large to be computed is not parsed either: some of sympy's constructors evaluate.
    """
    if too_long(text) or too_large(text) or _NO_EXPRESSION.search(text) or len(split(text, _SEPARATOR)) > 1:
        return None
    prepared = _prepared(text)
    if evaluates_at_once(prepared) or re.search(r"\d\s+\d", prepared):  # of two numbers side by side the parser makes one
        return None
    found = parse(f"\\boxed{{{prepared}}}", _CONFIG, fallback_mode="no_fallback", parsing_timeout=None)
    if not found or found[0] in (nan, zoo) or not (is_matrix(found[0]) or isinstance(found[0], Expr)):
        return None
    sound = all(not isinstance(node, (Set, Relational)) for node in preorder_traversal(found[0]))
    return found[0] if sound else None


def is_matrix(expression: Any) -> bool:
    return isinstance(expression, (MatrixBase, MatrixExpr))


def _prepared(text: str) -> str:
    """What the parser reads in another way than it is meant."""
    text = with_integer_functions(text)
    text = _PRIME.sub(lambda found: f"{found[1]}_{{{'p' * max(1, found[2].count(chr(39)) + found[2].count('prime'))}}}", text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", _SUBSCRIPT.sub(r"_{\1}", text))
    text = _REPEATING.sub(_repeating, text)
    text = _DECIMAL.sub(_fraction, text)
    if _ANGLE_FUNCTION.search(text):
        text = (
            _DEGREES.sub(r"\1\\cdot\\frac{\\pi}{180}", text)
            if "}^{\\circ}" in text
            else _DEGREES.sub(r"{\\frac{\1\\pi}{180}}", text)
        )
    text = text.replace(r"^{\circ}", "")
    return _GROUP_TIMES.sub(r"\1\\cdot ", _TIMES_GROUP.sub(r"\1\\cdot ", text))


def _fraction(found: re.Match[str]) -> str:
    if found[3]:
        return found[3]
    return rf"{{\frac{{{(found[1] + found[2]).lstrip('0') or '0'}}}{{1{'0' * len(found[2])}}}}}"


def _repeating(found: re.Match[str]) -> str:
    value = repeating(found[1], found[2], found[3])
    return rf"{{\frac{{{value.numerator}}}{{{value.denominator}}}}}"
