"""From a normal text to an answer: lists, equations, sets, brackets and matrices; ``scalars.py`` reads what is left."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from itertools import product

from renio_pipeline.tasks.maths.answers import Answer, Choice, Combined, Dots, Group, Matrix, Relation, Several, Text, Word
from renio_pipeline.tasks.maths.notation.scanning import end_of_group, split
from renio_pipeline.tasks.maths.reading.scalars import scalar, sum_of_units

_AND = re.compile(r"\s*,?\s*(?:\\text\{\s*,?\s*(?:and|or|&)\s*,?\s*\}|(?<![\w\\])(?:and|or)(?!\w)|[或和与且])\s*,?\s*")
_CHOICE = re.compile(
    r"(?:\\text\{)?\s*(?:(?:option|choice|answer)\s+)?(?:\(\s*([A-Z])\s*\)|([A-Z])\s*\)|([A-Z])[.:](?=\s))\s*\}?\s*(.*)"
    r"|\(?\s*(?:\\text\{)?\s*\(?(?:option|choice)\s+\(?([A-Z])\)?\s*\}?\s*\)?()",
    re.DOTALL | re.IGNORECASE,
)
_NO_CONTENT = re.compile(r"[+\-*/^=<>_!,;&|]|\\(?:cup|cap|cdot|times|setminus|to|leq|geq|neq|in|pm|div)(?![a-zA-Z])")
_SIGNS_OF_TWO = re.compile(r"\\(pm|mp)(?![a-zA-Z])")
_MOST_SIGNS = 3
_SEPARATOR = re.compile(r",|;|\\\\")
_DOTS = re.compile(r"\\ldots")
_DOTS_AT_AN_END = re.compile(r"^\\ldots|(?<!:)\\ldots$")  # but for those of a ratio
_REMARK = re.compile(r"(?<=\S)\s*\(\s*\\text\{[^{}]*\}\s*\)$")  # x = 1 (double root)
_FOR_ALL = re.compile(  # that a parameter is an integer is understood
    r"(?<=[^\s|:])\s*,?\s*(?:\\text\{[^{}]*\}\s*)?\(?\s*(?<![a-zA-Z\\])[a-zA-Z]\s*\\in\s*\\mathbb\s*\{[ZN]\}[^\s,)}]*\s*\)?$"
)
_PARAMETER = re.compile(r"(?:\\text\{[^{}]*\}\s*)?[a-zA-Z]\s*\\in\s*\\mathbb\s*\{[ZN]\}\S*|\\text\{[^{}]*integer[^{}]*\}")
_APPROXIMATELY = re.compile(r"\\approx(?![a-zA-Z])")
_RELATION = re.compile(r"\\(?:leq|geq|neq|in|notin|equiv)(?![a-zA-Z])|[=<>]")
_NAME = re.compile(
    r"\|?\s*(?:\\(?:angle|triangle|overline|vec|hat|text|mathbb|mathcal)\s*)*(?:\{[^{}]*\}|\\[a-zA-Z]+|[A-Za-z][A-Za-z\s]*)"
    r"(?:\^\{-1\})?(?:_\s*(?:\{[^{}]*\}|\w))?'*\s*(?:\([^()]*\))?\s*\|?|\((?:\s*[a-zA-Z]\s*,)+\s*[a-zA-Z]\s*\)"
)
_WITHOUT = re.compile(r"\\setminus(?![a-zA-Z])")
_UNION = re.compile(r"\\cup(?![a-zA-Z])")
_INTERSECTION = re.compile(r"\\cap(?![a-zA-Z])")
_LETTER_UNION = re.compile(r"(?<=[\])}])\s*[Uu]\s*(?=[(\[]|\\\{)")
_REALS_WITHOUT = re.compile(r"(\\mathbb\s*\{[RZNQC]\})\s*(?:-|\\)\s*(?=\\\{)")
_BUILDER = re.compile(r"\s*\(?[a-zA-Z](?:\s*,\s*[a-zA-Z])*\)?\s*(?:\\in\s*\\mathbb\s*\{[A-Z]\}\S*\s*)?[|:](?!=)(.+)", re.DOTALL)
_SUCH_THAT = re.compile(r"[|:](?=.*\\(?:in|leq|geq|neq)(?![a-zA-Z])|.*[<>=])")
_POINT = re.compile(r"[A-Z]'?\s*(\([^()]+,[^()]+\))")
_ENVIRONMENT = re.compile(
    r"[(\[]?\s*\\begin\s*\{(?:[pbB]?matrix|smallmatrix|array|cases|aligned|align\*?|gathered)\}(?:\s*\{[clr|\s]*\})?(.*?)"
    r"\\end\s*\{(\w+\*?)\}\s*[)\]]?",
    re.DOTALL,
)


@lru_cache(8192)
def read(text: str) -> Answer:
    """What a normal text says. Never fails: what cannot be read is a ``Text``, which equals the same text alone."""
    try:
        if found := _choice(text) or sum_of_units(text):
            return found
        text = _FOR_ALL.sub("", _REMARK.sub("", text))
        return _read(_REALS_WITHOUT.sub(r"\1\\setminus ", _LETTER_UNION.sub(r" \\cup ", _AND.sub(", ", text))))
    except RecursionError:
        return Text(text, sound=False)


def _read(text: str) -> Answer:
    return (
        _list(text) or _exact_part(text) or _two_signs(text) or _relation(text) or _sets(text) or _brackets(text)
        or _environment(text) or scalar(text)
    )  # fmt: skip


def _choice(text: str) -> Answer | None:
    found = _CHOICE.fullmatch(text)
    if not found:
        return None
    letter = found[1] or found[2] or found[3] or found[5]
    content = (found[4] or "").strip()
    if not letter.isupper() or _NO_CONTENT.match(content):
        return None
    return Choice(letter, read(content)) if content else Word(letter.lower())


def _list(text: str) -> Answer | None:
    pieces = [piece for piece in split(text, _SEPARATOR)[::2] if piece]
    if len(pieces) < 2 and not any(map(_DOTS_AT_AN_END.search, pieces)):
        return None
    wanted = [piece for piece in pieces if not _PARAMETER.fullmatch(piece)] or pieces
    if len(wanted) == 1 and len(pieces) > 1:
        return _read(wanted[0])
    items: list[Answer] = []
    for piece in wanted:
        for part in split(piece, _DOTS) if _DOTS_AT_AN_END.search(piece) else [piece]:
            item = Dots() if _DOTS.fullmatch(part) else _read(part) if part else None
            if isinstance(item, Several) and item.kind == "list":
                items += item.items
            elif item is not None:
                items.append(item)
    if len(items) < 2:
        return None
    return Several(tuple(items), "sequence" if Dots() in items else "list")


def _exact_part(text: str) -> Answer | None:
    r"""``x = \sqrt{2} \approx 1.41`` is read without what is only roughly so."""
    before, *after = split(text, _APPROXIMATELY)[::2]
    if not after:
        return None
    return _read(after[0] if not before or _NAME.fullmatch(before) else before)


def _two_signs(text: str) -> Answer | None:
    r"""``1 \pm x`` as the two values; several of these signs are independent unless \mp is among them."""
    signs = _SIGNS_OF_TWO.findall(text)
    in_braces = text.startswith(r"\{") and end_of_group(text, 0) == len(text)  # of a set each element is read
    if not signs or len(signs) > _MOST_SIGNS or in_braces:
        return None
    if "mp" in signs:
        chosen = [["+" if sign == "pm" else "-" for sign in signs], ["-" if sign == "pm" else "+" for sign in signs]]
    else:
        chosen = [list(choice) for choice in product("+-", repeat=len(signs))]
    values: list[Answer] = []
    pieces = _SIGNS_OF_TWO.split(text)[::2]
    for choice in chosen:
        written = "".join(piece + sign for piece, sign in zip(pieces, [*choice, ""], strict=True))
        values.append(_read(re.sub(r"^\s*\+|(?<=[=(,<>])\s*\+", "", written).strip()))
    return Several(tuple(values), "list")


def _relation(text: str) -> Answer | None:
    parts = split(text, _RELATION)
    sides, signs = parts[::2], parts[1::2]
    if not signs or not all(sides):
        return None
    names = tuple(_NAME.fullmatch(side) is not None for side in sides)
    return Relation(tuple(map(_side, sides, names)), tuple(signs), names)


def _side(text: str, is_name: bool) -> Answer:
    """A side of a relation. A name need not be more than text: P(A | B), or the length."""
    side = _read(text)
    return replace(side, sound=True) if isinstance(side, Text) and is_name else side


def _sets(text: str) -> Answer | None:
    for separator in (_WITHOUT, _UNION, _INTERSECTION):
        parts = split(text, separator)[::2]
        if len(parts) > 1 and all(parts):
            return Combined(separator.pattern.removesuffix("(?![a-zA-Z])").replace("\\\\", "\\"), tuple(map(_read, parts)))
    return None


def _brackets(text: str) -> Answer | None:
    if found := _POINT.fullmatch(text):
        text = found[1]
    left = next((bracket for bracket in (r"\{", r"\langle", "(", "[", "{") if text.startswith(bracket)), None)
    if left is None or end_of_group(text, 0) != len(text):
        return None
    right = next((bracket for bracket in (r"\}", r"\rangle", ")", "]", "}") if text.endswith(bracket)), "")
    inner = text[len(left) : len(text) - len(right)].strip()
    if not inner or not right:
        return None
    if left == r"\{":
        return _built(inner) or _set(inner)
    items = _list(inner)
    if isinstance(items, Several):
        curved = left == r"\langle"
        return Group("(" if curved else left, ")" if curved else right, items.items)
    return _read(inner)


def _built(inner: str) -> Answer | None:
    """A set by what its elements satisfy: of a mere symbol the condition says it all."""
    if found := _BUILDER.fullmatch(inner):
        return _read(found[1].strip())
    parts = split(inner, _SUCH_THAT)[::2]
    return Combined("|", tuple(map(_read, parts))) if len(parts) == 2 and all(parts) else None


def _set(inner: str) -> Answer:
    elements = _list(inner) or _read(inner)
    if isinstance(elements, Several) and elements.kind != "set":
        return Several(elements.items, "sequence" if elements.kind == "sequence" else "set")
    return Several((elements,), "set")


def _environment(text: str) -> Answer | None:
    found = _ENVIRONMENT.fullmatch(text)
    if not found or r"\begin" in found[1]:
        return None
    rows = [row for row in split(found[1], re.compile(r"\\\\(?:\s*\[[^\]]*\])?|\\hline"))[::2] if row]
    if found[2] in ("cases", "aligned", "align", "align*", "gathered"):
        return _read(", ".join(row.replace("&", "") for row in rows))
    cells = [[_read(cell) for cell in split(row, re.compile("&"))[::2]] for row in rows]
    if len({len(row) for row in cells}) != 1 or any(isinstance(cell, Text) for row in cells for cell in row):
        return None
    return Matrix(tuple(map(tuple, cells)))
