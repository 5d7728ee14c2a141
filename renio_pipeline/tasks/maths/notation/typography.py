"""One way to write an answer: what differs afterwards is more than typography."""

from __future__ import annotations

import re

from renio_pipeline.tasks.maths.notation.characters import ascii_of
from renio_pipeline.tasks.maths.notation.commands import plain_commands
from renio_pipeline.tasks.maths.notation.digits import plain_commas, plain_digits

_AROUND = re.compile(r"(\$\$|\$|\*\*|\*|__|`|\")(.+)\1|\\\[(.+)\\\]|\\\((.+)\\\)", re.DOTALL)
_MOST_CHARACTERS = 4000
_DELIMITER = re.compile(r"(?<!\\)\\[\[\]()]")
_ALL_TEXT = re.compile(r"\\text\{([^{}]*[\d=+$()][^{}]*)\}")
_WORDS_IN_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_BETWEEN_WORDS = re.compile(r"\s*(?:[,;]|\band\b|\bor\b)\s*")
_DIGITS_IN_TEXT = re.compile(r"\\text\{(\s*[-+\d.,:/ ]*\d[\d.,:/ ]*)\}")
_SIGN_IN_TEXT = re.compile(r"\\text\{\s*(\\[$%]|\\(?:euro|pounds|yen|rupee|cent)\s*)\s*\}")
_TO = re.compile(r"(?<=\d)\s*(?:\\text\{\s*to\s*\}|\bto\b)\s*(?=\d)")  # 2 to 3, a ratio
_LABEL = re.compile(
    r"(?:\\text\{)?\s*(?:the\s+)?(?:final\s+)?(?:answer|result|solutions?)(?:\s+(?:is|are))?\s*(?::\s*\}|[:=]\s*|\}\s*[:=]?|(?<=is)\s|(?<=are)\s)",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"^\s*(?:\\text\{)?\s*(?:about|approximately|approx\.?|roughly|nearly|almost|around|exactly|total|sum|value)\s*[:=]?\s*\}?\s*"
    r"(?=[\d\\($+\-.])",
    re.IGNORECASE,
)
_NUMBER_SETS = re.compile(r"\\(?:mathbf|mathds|Bbb|bf)\s*\{?\s*([RZNQC])\s*\}?(?![a-zA-Z])")
_WORDS = [
    (r"\\text\{\s*(?:percent|per cent|percentage|pct\.?|\\?%)\s*\}|\b(?:percent|per cent|pct)\b\.?|(?<!\\)%", r"\\%"),
    (r"\\text\{\s*\+?(?:infinity|inf)\s*\}|(?<![\\a-zA-Z])(?:infinity|inf|oo)(?![a-zA-Z])", r"\\infty "),
    (r"(?:\\text\{\s*)?\ball (?:real numbers|reals)\b(?:\s*\})?", r"\\mathbb{R}"),
    (r"(?:\\text\{\s*)?(?:\bthe )?\bempty set\b(?:\s*\})?", r"\\emptyset "),
]
_COMMAND_OF = [(re.compile(words, re.IGNORECASE), command) for words, command in _WORDS]
_FRENCH = re.compile(r"([\]\[(])([^\[\]()]+[,;][^\[\]()]+)([\[\])])")


def normal(text: str) -> str:
    """The answer in ASCII and few commands. Numbers, units and words keep their meaning, and lists their order.

    What is nested so deeply, or is so long, that no person wrote it stays as it is.
    """
    try:
        return _normal(text) if len(text) <= _MOST_CHARACTERS else text.strip()
    except RecursionError:
        return text.strip()


def _normal(text: str) -> str:
    text = _unwrapped(ascii_of(text.strip()))
    text = _dollars(text)
    text = plain_commas(plain_commands(_NUMBER_SETS.sub(r"\\mathbb{\1}", text)))
    for words, command in _COMMAND_OF:
        text = words.sub(command, text)
    text = _TO.sub(":", _SIGN_IN_TEXT.sub(r"\1", _DIGITS_IN_TEXT.sub(r"\1", text)))
    if whole := _ALL_TEXT.fullmatch(text.strip()):
        text = whole[1]
    elif in_text := _WORDS_IN_TEXT.fullmatch(text.strip()):
        text = ", ".join(rf"\text{{{word}}}" for word in _BETWEEN_WORDS.split(in_text[1]) if word.strip())
    if label := _LABEL.match(text):
        text = text[label.end() :]
    text = _trimmed(_HEDGE.sub("", text))
    text = plain_digits(re.sub(r"  +", " ", text))
    return _FRENCH.sub(_brackets, _trimmed(text))


def _unwrapped(text: str) -> str:
    """Without delimiters of mathematics, marks of bold text, and the like around the whole."""
    while found := _AROUND.fullmatch(text):
        inner = found[2] or found[3] or found[4]
        if (found[1] and found[1] in inner) or "\\[" in inner or "\\(" in inner:
            break
        text = inner.strip()
    return _DELIMITER.sub(" ", text)


def _dollars(text: str) -> str:
    r"""A dollar of currency is ``\$``; one that delimits mathematics goes."""
    bare = len(re.findall(r"(?<!\\)\$", text))
    if bare % 2 and (found := re.search(r"(?<!\\)\$(?=\s*[\d.])", text)):
        text = text[: found.start()] + r"\$" + text[found.end() :]
    return re.sub(r"(?<!\\)\$", " ", text)


def _trimmed(text: str) -> str:
    """Without the blanks, and the punctuation of the sentence around it."""
    before = None
    while text != before:
        before = text
        text = re.sub(r"(?:\\\\|\{\s*\})\s*$", "", text.strip())
        text = re.sub(r"^[,;:=]\s*|\s*\?$", "", text)
        if not text.endswith(r"\."):
            text = re.sub(r"(?<![.])[.,;:]$", "", text)
    return text


def _brackets(found: re.Match[str]) -> str:
    """]0, 1[ as (0, 1): open ends as they are written in France. Only where the brackets of an interval look outwards."""
    left, inner, right = found.groups()
    if left != "]" and right != "[":
        return found[0]
    return f"{'(' if left == ']' else left}{inner}{')' if right == '[' else right}"
