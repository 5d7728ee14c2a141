"""Lists, sets and sequences, item by item."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from renio_pipeline.tasks.maths.answers import Answer, Combined, Group, NumberSet, Relation, Several

Equal = Callable[[Answer, Answer], bool]
_MOST_ITEMS = 200  # that are compared each with each
_SETS = (Combined, Group, NumberSet, Relation, Several)


def several(gold: Answer, given: Answer, equal: Equal) -> bool:
    """A list or set, against another answer: in any order, but sequences (with dots) and what is in brackets in order."""
    if not isinstance(given, Several):
        return isinstance(gold, Several) and _against_other(gold, given, equal)
    if not isinstance(gold, Several):
        return _against_other(given, gold, lambda one, other: equal(other, one))
    if "sequence" in (gold.kind, given.kind):
        return gold.kind == given.kind and in_order(gold.items, given.items, equal)
    if "set" in (gold.kind, given.kind):
        return in_any_order(list(_distinct(gold.items, equal)), list(_distinct(given.items, equal)), equal)
    return in_any_order(gold.items, given.items, equal)


def in_order(gold: Sequence[Answer], given: Sequence[Answer], equal: Equal) -> bool:
    """Whether the items are equal one by one."""
    return len(gold) == len(given) and all(map(equal, gold, given))


def in_any_order(gold: Sequence[Answer], given: Sequence[Answer], equal: Equal) -> bool:
    """Whether each item has its own equal one."""
    if len(gold) != len(given) or len(gold) > _MOST_ITEMS:
        return in_order(gold, given, equal)
    left = list(given)
    missing = []
    for item in gold:
        if item in left:
            left.remove(item)
        else:
            missing.append(item)
    for item in missing:
        found = next((at for at, other in enumerate(left) if equal(item, other)), None)
        if found is None:
            return False
        del left[found]
    return True


def _against_other(one: Several, other: Answer, equal: Equal) -> bool:
    """``1, 2`` is ``(1, 2)``; a list or set of a single value is that value."""
    if isinstance(other, Group):
        return one.kind == "list" and (other.left, other.right) == ("(", ")") and in_order(one.items, other.items, equal)
    if one.kind == "sequence" or (one.kind == "set" and len(one.items) > 1) or isinstance(other, _SETS):
        return False
    return all(equal(item, other) for item in one.items)


def _distinct(items: Sequence[Answer], equal: Equal) -> Iterator[Answer]:
    seen: list[Answer] = []
    for item in items:
        if item not in seen and not (len(items) <= _MOST_ITEMS and any(equal(other, item) for other in seen)):
            seen.append(item)
            yield item
