"""Words, letters and the options of a multiple choice."""

from __future__ import annotations

from collections.abc import Callable

from renio_pipeline.tasks.maths.answers import Answer, Choice, Formula, Several, Text, Word


def same_choice(gold: Answer, given: Answer, equal: Callable[[Answer, Answer], bool]) -> bool:
    """Options are compared by their letters where both have one, else by what stands there."""
    letters = [answer.letter.lower() if isinstance(answer, Choice) else _letter(answer) for answer in (gold, given)]
    if letters[0] and letters[1]:
        return letters[0] == letters[1]
    contents = [answer.content if isinstance(answer, Choice) else answer for answer in (gold, given)]
    return equal(contents[0], contents[1])


def same_words(gold: Answer, given: Answer) -> bool:
    r"""Words are equal as text. They may also be a product of symbols (AB and \text{AB}), or options (ACD and A, C, D)."""
    if isinstance(gold, (Word, Text)) and isinstance(given, (Word, Text)):
        return gold.text == given.text
    return bool(_letters(gold)) and _letters(gold) == _letters(given)


def _letter(answer: Answer) -> str | None:
    letters = _letters(answer)
    return letters if len(letters) == 1 else None


def _letters(answer: Answer) -> str:
    """The letters of a word, a product of symbols, or a list of options, sorted; "": it has other parts."""
    parts: list[str | None]
    if isinstance(answer, (Word, Text)):
        parts = list(answer.text)
    elif isinstance(answer, Several):
        parts = [item.text if isinstance(item, Word) and len(item.text) == 1 else None for item in answer.items]
    elif isinstance(answer, Formula):
        factors = answer.expression.args if answer.expression.is_Mul else (answer.expression,)
        parts = [factor.name.lower() if factor.is_Symbol else None for factor in factors]
    else:
        return ""
    return "" if None in parts else "".join(sorted(part for part in parts if part))
