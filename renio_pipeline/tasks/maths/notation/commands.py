"""LaTeX's commands: one way to write what looks the same or nearly so."""

from __future__ import annotations

import re

from renio_pipeline.tasks.maths.notation.scanning import argument, end_of_group

_SPACES = re.compile(
    r"\\(?:quad|qquad|enspace|enskip|thinspace|medspace|thickspace|hfill|null|strut|newline|par|left|right|middle|"
    r"[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|rm|bf|it|sf|boldmath|negthinspace|mathstrut|"
    r"nonumber|boldsymbol|bm|pmb|mathopen|mathclose|mathbin|mathrel|mathord|mathop|ensuremath)(?![a-zA-Z])"
    r"|\\[hv]space\*?\s*\{[^{}]*\}|\\(?:color|label|tag|phantom)\*?\s*\{[^{}]*\}"
)
_SPACE_SIGNS = re.compile(r"(?<!\\)\\[,;: ]|~|[\t\r\n\f\v]")
_NEGATIVE_SPACE = re.compile(r"(?<=,)\s*\\!\s*|\\[!/]")  # 1,\! 234
_COLOURED = re.compile(r"\\(?:textcolor|colorbox)\s*\{[^{}]*\}")
_BOLD_LETTER = re.compile(r"\\math(?:bf|it|sf|normal|cal|frak|scr)\s*\{\s*([a-zA-Z])\s*\}")
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt|normal|sc|up|md)?|math(?:rm|bf|it|sf|tt|normal)|mbox|hbox|emph|underline)\s*\{")
_NAMES = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "sfrac": "frac", "nicefrac": "frac",
    "dbinom": "binom", "tbinom": "binom",
    "le": "leq", "leqslant": "leq", "leqq": "leq", "lt": "<", "ge": "geq", "geqslant": "geq", "geqq": "geq", "gt": ">",
    "ne": "neq", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots", "dotsb": "ldots", "dotso": "ldots", "hdots": "ldots",
    "varnothing": "emptyset", "O": "emptyset", "empty": "emptyset", "infin": "infty",
    "lbrace": "{", "rbrace": "}", "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")", "lgroup": "(", "rgroup": ")",
    "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "lVert": "|", "rVert": "|", "Vert": "|",
    "ast": "cdot", "cdotp": "cdot", "bullet": "cdot", "bigcup": "cup", "bigcap": "cap", "backslash": "setminus",
    "smallsetminus": "setminus", "isin": "in", "approxeq": "approx", "simeq": "approx", "thickapprox": "approx",
    "colon": ":", "degree": r"^\circ", "degrees": r"^\circ", "textdegree": r"^\circ", "celsius": r"^\circ \text{C}",
    "widehat": "hat", "overrightarrow": "vec", "bar": "overline", "lor": "text{ or }", "land": "text{ and }",
    "vee": "text{ or }", "wedge": "text{ and }", "lg": "log_{10}", "textdollar": "$", "texteuro": "euro", "eur": "euro",
    "textsterling": "pounds", "imath": "i", "jmath": "j", "iff": "text{ or }", "rightarrow": "to", "Leftrightarrow": "iff",
    "textpercent": "%", "bmod": "mod", "R": "mathbb{R}", "Z": "mathbb{Z}", "N": "mathbb{N}", "Q": "mathbb{Q}", "C": "mathbb{C}",
}  # fmt: skip
_NAME = re.compile(r"\\([a-zA-Z]+)")
_BARE = {"<", ">", "|", "[", "]", "(", ")", ":", "i", "j"}  # without a backslash
_FUNCTIONS = "arcsin|arccos|arctan|arccot|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|sqrt|gcd|lcm|min|max|pi"
_WORD = re.compile(
    rf"(?<![\\a-zA-Z])({_FUNCTIONS})(?=\s*[({{])|(?<![\\a-zA-Z])(arcsin|arccos|arctan|sin|cos|tan|ln|log|sqrt|pi)(?![a-zA-Z])"
)
_ROMAN_LETTER = re.compile(r"\\text\{\s*([eid])\s*\}")
_ROMAN_FUNCTION = re.compile(rf"\\(?:text|operatorname\*?)\s*\{{\s*({_FUNCTIONS})\s*\}}")
_DETERMINANT = re.compile(
    r"\\left\s*\|\s*\\begin\{(?:array\}\{[^{}]*|matrix)\}(.*?)\\end\{(?:array|matrix)\}\s*\\right\s*\|", re.DOTALL
)
_OF_ELEMENTS = re.compile(r"\\(max|min|gcd|lcm)\s*\\\{([^{}]*)\\\}")
_COMBINATIONS = re.compile(r"(?:\{\s*\})?[_^]\s*\{?(\w+)\}?\s*(?:C|\\text\{C\})\s*_\s*\{?(\w+)\}?")
_CHOOSE = re.compile(r"\{([^{}]*)\\choose(?![a-zA-Z])\s*([^{}]*)\}")
_OVER = re.compile(r"\{([^{}]*)\\over(?![a-zA-Z])\s*([^{}]*)\}")
_ARGUMENTS = {r"\frac": 2, r"\binom": 2, r"\sqrt": 1, r"\overline": 1, r"\vec": 1, r"\hat": 1, "^": 1}
_WITH_ARGUMENTS = re.compile(r"\\[a-zA-Z]+|\^")
_RUN = re.compile(r"\d*(?:\.\d+)?")


def plain_commands(text: str) -> str:
    """The text with one command for each meaning, without blanks and sizes, and with braces around every argument."""
    text = _BOLD_LETTER.sub(r" \1 ", _COLOURED.sub("", text))
    text = _TEXT.sub(r"\\text{", text)
    text = _ROMAN_FUNCTION.sub(r"\\\1 ", _ROMAN_LETTER.sub(r" \1 ", text))
    text = re.sub(r"\\(?:left|right)\s*\.", "", text)
    text = _DETERMINANT.sub(r"\\begin{vmatrix}\1\\end{vmatrix}", text)
    text = _SPACE_SIGNS.sub(" ", _SPACES.sub(" ", _NEGATIVE_SPACE.sub("", text)))
    text = _COMBINATIONS.sub(r"\\binom{\1}{\2}", _OF_ELEMENTS.sub(r"\\\1(\2)", text))
    text = _CHOOSE.sub(r"\\binom{\1}{\2}", _OVER.sub(r"\\frac{\1}{\2}", text))
    text = _NAME.sub(_renamed, text)
    return _braced(_plain_ascii(text))


def _plain_ascii(text: str) -> str:
    """What is written as on a keyboard (<=, sqrt, **, +-) in LaTeX."""
    text = text.replace("<=", r"\leq ").replace(">=", r"\geq ").replace("...", r"\ldots ")
    text = re.sub(r"(?<![\d)])!=", r"\\neq ", text)  # 5!=120 has a factorial
    text = re.sub(r"\+/-|(?:^|(?<=[=,(]))\s*\+-", r"\\pm ", text)
    text = re.sub(r"(?<=[\w)}])\s?\*\*\s?(?=[\w({+\\-])", "^", text)
    return _WORD.sub(r"\\\1\2 ", text)


def _renamed(found: re.Match[str]) -> str:
    name = _NAMES.get(found[1])
    if name is None:
        return found[0]
    if name in _BARE or name.startswith("^"):
        return f"{name} "
    return f"\\{name} " if name[-1].isalpha() else f"\\{name}"


def _braced(text: str) -> str:
    r"""``\frac12``, ``\sqrt 3``, ``x^10`` and ``x^(n+1)`` with braces: as they are meant, where LaTeX would differ."""
    parts = []
    at = 0
    for found in _WITH_ARGUMENTS.finditer(text):
        if found.start() < at or found[0] not in _ARGUMENTS:
            continue
        written, end = _command(text, found[0], found.end())
        parts += [text[at : found.start()], written]
        at = end
    return "".join([*parts, text[at:]])


def _command(text: str, name: str, at: int) -> tuple[str, int]:
    """A command with its arguments in braces, and where it ends."""
    written = name
    while text.startswith(" ", at):
        at += 1
    if name == r"\sqrt" and text.startswith("[", at):
        end = end_of_group(text, at) or len(text)
        written += f"[{_braced(text[at + 1 : end - 1])}]"
        at = end
    for _ in range(_ARGUMENTS[name]):
        inner, at = _argument(text, at, name)
        written += f"{{{inner}}}"
    return written, at


def _argument(text: str, at: int, command: str) -> tuple[str, int]:
    braced = text[at:].lstrip().startswith("{")
    inner, end = argument(text, at)
    if braced:
        return _braced(inner), end
    if inner in _ARGUMENTS:  # \frac\sqrt3 2
        return _command(text, inner, end)
    if command in ("^", r"\sqrt"):
        if inner == "(" and (closed := end_of_group(text, end - 1)):
            return _braced(text[end : closed - 1]), closed
        if inner in ("+", "-") and command == "^":
            power, end = _argument(text, end, command)
            return inner + power, end
        if inner.isdigit() and (rest := _RUN.match(text, end)):
            return inner + rest[0], rest.end()
    return inner, end
