"""What a response says last: the contents of its last box, or else its final sentence's answer."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{")
_UNTIL = re.compile(r"[^$\n]{0,200}")  # of a box that is never closed
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s+([^\s{}$\\.,;]+|\\frac\s*\{[^{}]*\}\s*\{[^{}]*\})|\\(?:boxed|fbox)(\d+)")
_THOUGHTS_END = re.compile(
    r"</(?:think|thinking|thought|thoughts|reasoning|reason|scratchpad|analysis)>|\[/THINK\]|<\|end_of_thought\|>|◁/think▷"
    r"|<\|?/?think_end\|?>|<\|(?:start\|>assistant<\|)?channel\|>final<\|message\|>",
    re.IGNORECASE,
)
_BETWEEN_BOXES = re.compile(
    r"(?:\s|\$|\\[,;: ()\[\]]|\\q?quad|[,;&]|\band\b|\bor\b|\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|"
    r"\\(?:lor|vee|land|wedge)\b)*"
)
_ANSWER = re.compile(
    r"(?:^|(?<=[\s*_#>(]))(?:final\s+answer|answer|result)\s*(?:\*\*|__)?\s*(?:is\s*:?|:|=)(?!=)\s*(?:\*\*|__)?", re.IGNORECASE
)
_MARKED = re.compile(r"(?:^|\n)\s*####\s*(.+)")
_TAGGED = re.compile(r"<answer>(.{1,1000}?)</answer>", re.DOTALL | re.IGNORECASE)
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*|__([^_\n]+)__")
_FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$])\$([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_VALUE = re.compile(r"[^\w$\\]*(?:\d|\\[a-zA-Z]|\$|[a-zA-Z]\s*=|[A-Z]\W*$|[π∞∅½¼¾√])")
_MOST_BOXES = 100  # a response that repeats itself may have thousands
_MOST_CHARACTERS = 4000  # of prose in which math-verify looks for an expression
_MOST_WORDS = 3  # of an answer in words


def said_last(text: str) -> str | None:
    """The response's final answer as it is written; None if there is none."""
    text = _after_thoughts(text)
    box = _boxed(text)
    if box is not None:
        return box or None
    if begun := list(_BOX.finditer(text)):
        return _UNTIL.match(text, begun[-1].end())[0].strip() or None  # type: ignore[index]
    return _stated(text)


def last_box(text: str) -> str | None:
    r"""The contents of the last closed ``\boxed{...}``, or None."""
    found = _boxes(text)
    return found[-1][2] if found else None


def _after_thoughts(text: str) -> str:
    ends = [found.end() for found in _THOUGHTS_END.finditer(text)]
    return text[ends[-1] :] if ends else text


def _boxed(text: str) -> str | None:
    """The last box; joined with those right before it, as in ``\\boxed{1} and \\boxed{2}``."""
    boxes = _boxes(text)
    if not boxes:
        bare = list(_BARE_BOX.finditer(text))
        return (bare[-1][1] or bare[-1][2]) if bare else None
    answers = [boxes[-1][2]]
    start = boxes[-1][0]
    for before, end, content in reversed(boxes[:-1]):
        if end > start or not _BETWEEN_BOXES.fullmatch(text, end, start):
            break
        start = before
        if content and content not in answers:
            answers.append(content)
    return ", ".join(reversed(answers))


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """Start, end and contents of each closed box, at most the last so many; of nested boxes the innermost."""
    found: list[tuple[int, int, str]] = []
    first_end = len(text) + 1  # of the boxes that begin further on: one that closes after it has a box in it
    for match in reversed(list(_BOX.finditer(text))[-_MOST_BOXES:]):
        end = _closing(text, match.end())
        if end is not None and end < first_end:
            first_end = end + 1
            found.append((match.start(), first_end, text[match.end() : end].strip()))
    return found[::-1]


def _closing(text: str, start: int) -> int | None:
    r"""Where the brace closes that opens before ``start``. That of ``\\}`` counts only where the box would not close else."""
    for only_odd in (False, True):
        depth, backslashes = 1, 0
        for at in range(start, len(text)):
            c = text[at]
            if not (backslashes % 2 if only_odd else backslashes):
                depth += (c == "{") - (c == "}")
            backslashes = backslashes + 1 if c == "\\" else 0
            if not depth:
                return at
    return None


def _stated(text: str) -> str | None:
    """The answer of a response without a box: in a tag of answer, after ####, after "the answer is", in bold,
    or the last expression."""
    if tagged := _TAGGED.findall(text):
        return str(tagged[-1]).strip() or None
    if marked := _MARKED.findall(text):
        return str(marked[-1]).strip() or None
    stated = list(_ANSWER.finditer(text))
    if stated:
        rest = text[stated[-1].end() :].strip()
        line = rest.split("\n\n")[0] if rest.startswith(("$$", "\\[")) else rest.split("\n")[0]
        if answer := _value_in(line):
            return answer
    return _in_bold(text) or _last_expression(text)


def _in_bold(text: str) -> str | None:
    """The last bold words of the last line, where they are a value, or all that this line could mean."""
    lines = [line for line in text.splitlines() if re.search(r"\w", line)]
    bold = [one or other for one, other in _BOLD.findall(lines[-1])] if lines else []
    if not bold:
        return None
    if _VALUE.match(bold[-1].strip()):
        return _value_in(bold[-1])
    return bold[-1] if len(bold[-1].split()) <= _MOST_WORDS and not re.search(r"\d", lines[-1]) else None


def _value_in(line: str) -> str | None:
    """A whole line where it is short, its last formula, or the last expression in it."""
    line = re.sub(r"\*\*|__", "", line).strip()
    formulas = ["".join(found) for found in _FORMULA.findall(line)]
    without = _FORMULA.sub("", line).strip(" .,;:!")
    if formulas and not without:
        return ", ".join(formulas) if len(formulas) > 1 else formulas[0]
    words = line.split()
    if (len(words) == 1 and _VALUE.match(line)) or (0 < len(words) <= _MOST_WORDS and not re.search(r"[\d$\\]", line)):
        return line
    return _last_expression(line)


def _last_expression(text: str) -> str | None:
    """What math-verify takes for the answer in prose."""
    import logging

    from math_verify import parse

    from renio_pipeline.tasks.maths.notation.characters import ascii_of

    logging.getLogger("math_verify.parser").setLevel(logging.CRITICAL)
    found = parse(ascii_of(text[-_MOST_CHARACTERS:]), parsing_timeout=None)
    return str(found[-1]) if found else None
