"""Finds the program in a response: the last code block that is Python, however carelessly it is fenced."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from dataclasses import dataclass

_MARKS = re.compile(r"`{3,}|~{3,}")
_PYTHON = re.compile(r"\{? ?\.?(?:python|py)(?:3(?:\.\d+)?|\d(?:\.\d+)?)?(?![\w.-])", re.IGNORECASE)
_GLUED = re.compile(r"(?:python3?|py3?)(?=[A-Za-z_@#\"'])", re.IGNORECASE)  # and the first statement right after it
_ATTRIBUTES = re.compile(
    r"[ }]*(?:\{.*\}?|[\w/-]+\.py|"
    r"(?:(?:title|file\w*|name|path|lines|linenums|hl_lines|start\w*|caption|label|id|class|num\w*|show\w*)"
    r"(?:=(?:\"[^\"]*\"|'[^']*'|\S+))?[ ,]*)*)",
    re.IGNORECASE,
)
_MAYBE_PYTHON = ("python", "glued", "")
_MOST_FENCES = 20  # that are tried: the later may end a block that has the earlier in a string
_TAG = re.compile(r"[\w+#.-]*")


@dataclass(frozen=True, slots=True)
class Block:
    tag: str  # the language, in lower case; "python" for all its spellings, "" for none
    code: str
    closed: bool


def program_in(text: str) -> str | None:
    """The program, or None for a response without one.

    It is the last block that is tagged as Python, or that has no tag and is a Python program. Among those, a block that cannot
    be compiled counts only where no other can. What follows a ``</think>`` is the response; one that never ends its thinking
    has none.
    """
    _, ended, said = text.rpartition("</think>")
    if not ended and said.lstrip().startswith("<think>"):
        return None
    blocks = code_blocks(said.replace("\r\n", "\n"))
    tagged = [b for b in blocks if b.tag == "python"]
    good = [b for b in blocks if b.tag == "python" and parses(b.code)]
    good += [b for b in blocks if b.tag == "" and _is_program(b.code)]
    if good:
        return max(good, key=blocks.index).code.rstrip()
    plain = [b for b in blocks if b.closed and b.tag == "" and parses(b.code)]
    left = plain if plain and not tagged else [b for b in tagged if b.closed] or [b for b in blocks if b.closed and b.tag == ""]
    return left[-1].code.rstrip() if left else None


def code_blocks(text: str) -> list[Block]:
    """The fenced blocks of Markdown text.

    A fence closes its block where it stands on a line of its own. Where what it encloses then is no Python, it may also stand
    at the end of the code's last line, or have text after it, or be left out before the next block and at the end.
    """
    lines, found, at = text.split("\n"), list[Block](), 0
    while at < len(lines):
        opened = _opening(lines[at])
        if opened is None:
            at += 1
            continue
        block, at = _read(lines, at + 1, *opened)
        found.append(block)
    return found


def _opening(line: str) -> tuple[str, str, str] | None:
    """(indentation, mark, what follows it) where a line opens a block. It may stand at the end of a line of text."""
    marks = list(_MARKS.finditer(line))
    if len(marks) != 1:
        return None
    mark = marks[0]
    before, info = line[: mark.start()], line[mark.end() :].strip()
    if before.strip() and info and not (_PYTHON.match(info) or _GLUED.match(info)):
        return None  # text that mentions a fence
    return before if not before.strip() else "", mark[0], info


def _read(lines: list[str], start: int, indent: str, mark: str, info: str) -> tuple[Block, int]:
    """The block that opens before line ``start``, and the line after it."""
    tag, first = _language(info)
    kept: tuple[Block, int] | None = None  # where it ends if no line further down ends it better
    fences = 0
    for at in range(start, len(lines)):
        end = _closing(lines[at], indent, mark)
        if end is None:
            continue
        last = [lines[at][: lines[at].rfind(mark)]] if end == "glued" else []
        code = _code(first, [*lines[start:at], *last])
        closed, good = end != "opens another", parses(code)
        fences += end == "fence"
        found = Block(_tag(tag, first, code), code, closed), at + closed
        if end == "fence" and (good or tag not in _MAYBE_PYTHON):
            return found
        if kept is None and (good or end == "fence"):
            kept = found
        if fences > _MOST_FENCES or (kept is not None and end == "opens another"):
            break
    if kept is not None:
        return kept
    code = _code(first, lines[start:])
    whole = Block(_tag(tag, first, code), code, closed=False)
    return whole if parses(code) or tag not in ("python", "") else Block("unfinished", code, closed=False), len(lines)


def _closing(line: str, indent: str, mark: str) -> str | None:
    marks = list(_MARKS.finditer(line))
    if len(marks) != 1 or not marks[0][0].startswith(mark):
        return None
    before, after = line[: marks[0].start()], line[marks[0].end() :].strip()
    if before.strip():
        return "glued" if not after else None
    if len(before) >= len(indent) + 4:
        return None  # a fence inside of a string of the program
    if not after:
        return "fence"
    return "opens another" if _PYTHON.match(after) or _TAG.fullmatch(after) else "text after"


def _language(info: str) -> tuple[str, str]:
    """(tag, code on the fence's own line)."""
    if (named := _PYTHON.match(info)) is not None:
        rest = info[named.end() :]
        return "python", "" if _ATTRIBUTES.fullmatch(rest) else rest.strip()
    if (glued := _GLUED.match(info)) is not None:
        return "glued", info[glued.end() :]
    tag = _TAG.match(info)
    return (tag[0].lower() if tag else ""), ""


def _tag(tag: str, first: str, code: str) -> str:
    """The block's tag. ``pythonimport re`` is Python if what follows the word is; else it is another language's name."""
    return tag if tag != "glued" else "python" if parses(code) else first.lower()


def _code(first: str, lines: list[str]) -> str:
    """The lines as code, without the indentation of a list's item."""
    body = "\n".join(lines)
    if lines and next((line for line in lines if line.strip()), "")[:1].isspace():
        body = textwrap.dedent(body)
    return f"{first}\n{body}" if first else body


def parses(code: str) -> bool:
    """Whether text is Python, and something of it."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return bool(ast.parse(code).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_program(code: str) -> bool:
    """Whether a block without a tag is a program, and not a sample of its output: ``3`` and ``YES`` are Python, too."""
    if not parses(code):
        return False
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.stmt) and not isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign | ast.Pass):
            return True
        if isinstance(node, ast.Call):
            return True
    return False
