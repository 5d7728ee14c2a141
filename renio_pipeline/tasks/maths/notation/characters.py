"""Unicode's signs, and HTML's, in ASCII and LaTeX's commands: minus signs, fractions, superscripts, Greek letters, blanks."""

from __future__ import annotations

import html
import re
import unicodedata

_SIGNS = {
    "-": "−–—‒―‐‑⁃﹣－➖",
    "+": "＋➕",
    "'": "‘’‛′ʹ´",
    '"': "“”„″",
    "/": "⁄∕／",
    ":": "∶：ː",
    ",": "，、٬",
    ";": "；",
    ".": "。．٫",
    "*": "∗＊",
    "|": "∣｜",
    r"\times ": "×✕✖⨯",
    r"\cdot ": "·⋅∙•‧・",
    r"\div ": "÷",
    r"\pm ": "±",
    r"\mp ": "∓",
    r"\leq ": "≤⩽≦",
    r"\geq ": "≥⩾≧",
    r"\neq ": "≠",
    r"\approx ": "≈≃≅",
    r"\infty ": "∞",
    r"\cup ": "∪⋃",
    r"\cap ": "∩⋂",
    r"\setminus ": "∖",
    r"\emptyset ": "∅⌀",
    r"\in ": "∈",
    r"\ldots ": "…⋯‥",
    r"\angle ": "∠",
    r"\triangle ": "△",
    r"^\circ ": "°º˚",
    r"\euro ": "€",
    r"\pounds ": "£",
    r"\yen ": "¥￥",
    r"\rupee ": "₹",
    r"\cent ": "¢",
    r"\mathbb{R}": "ℝ",
    r"\mathbb{Z}": "ℤ",
    r"\mathbb{N}": "ℕ",
    r"\mathbb{Q}": "ℚ",
    r"\mathbb{C}": "ℂ",
    r"\langle ": "⟨〈",
    r"\rangle ": "⟩〉",
    r"\lfloor ": "⌊",
    r"\rfloor ": "⌋",
    r"\lceil ": "⌈",
    r"\rceil ": "⌉",
    r"\sqrt ": "√",
    r"\sqrt[3] ": "∛",
    r"\sqrt[4] ": "∜",
    r"\to ": "→⟶",
}
_OF = {sign: written for written, signs in _SIGNS.items() for sign in signs}
_ENTITY = re.compile(r"&(?:lt|gt|le|ge|ne|amp|nbsp|times|minus|plusmn|pi|deg|radic|infin|frac12|#\d{1,6});")
_TAG = re.compile(r"</?(?:b|i|u|em|strong|br|p|span|div|code|font|answer|math)(?:\s[^<>]*)?/?>", re.IGNORECASE)
_BOTH = re.compile(r"<(sup|sub)>([^<>]*)</\1>", re.IGNORECASE)
_GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER (\w+)$")


def ascii_of(text: str) -> str:
    """The text with its typographic signs in ASCII and LaTeX. Letters of other alphabets stay."""
    text = _TAG.sub("", _ENTITY.sub(lambda found: html.unescape(found[0]), _BOTH.sub(_script, text)))
    if text.isascii():
        return text
    text = "".join(_raised("super", "^", text))
    text = "".join(_raised("sub", "_", text))
    text = "".join(map(_one, text))
    return "".join(_OF.get(c, c) for c in unicodedata.normalize("NFKC", text))


def _script(found: re.Match[str]) -> str:
    return f"{'^' if found[1].lower() == 'sup' else '_'}{{{found[2]}}}"


def _raised(kind: str, mark: str, text: str) -> list[str]:
    """Runs of superscripts (or subscripts) as one group: x² is x^{2}, 10⁻⁷ is 10^{-7}."""
    parts: list[str] = []
    run = ""
    for c in f"{text}\0":
        code, _, base = unicodedata.decomposition(c).partition(" ")
        if code == f"<{kind}>" and c not in _OF and " " not in base:
            plain = chr(int(base, 16))
            run += _OF.get(plain, plain)
            continue
        if run:
            parts.append(f"{mark}{{{run}}}")
            run = ""
        parts.append(c)
    return parts[:-1]


def _one(c: str) -> str:
    if c in _OF:
        return _OF[c]
    if c.isascii():
        return c
    kind = unicodedata.category(c)
    if kind == "Zs":
        return " "
    if kind == "Cf":  # zero-width blanks, soft hyphens, marks of direction
        return ""
    if kind == "Nd":
        return str(unicodedata.decimal(c))
    decomposition = unicodedata.decomposition(c)
    if decomposition.startswith("<fraction>"):
        above, _, below = unicodedata.normalize("NFKC", c).partition("⁄")
        return rf"\frac{{{above}}}{{{below}}}" if below else c
    if letter := _GREEK.match(unicodedata.name(c, "")):
        name = letter[2].lower().replace("lamda", "lambda")
        return f"\\{name if letter[1] == 'SMALL' else name.capitalize()} "
    return c
