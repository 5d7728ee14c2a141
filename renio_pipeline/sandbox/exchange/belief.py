"""What tests believe an object of the program about plain data, which decides whether a result is right.

An object whose class the tests do not name equals no data, whatever it claims. One of a class that they name may, but it is
asked among decoys. It takes part in calculations and comes before other data only if the tests have made it themselves, or
calculated it from such: what a function hands them as a result must be data.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from renio_pipeline.sandbox.exchange import remote, remote_types
from renio_pipeline.sandbox.exchange.decoys import Decoys
from renio_pipeline.sandbox.exchange.peer import Peer
from renio_pipeline.sandbox.exchange.wire import Foreign

_OPPOSITE = {"__lt__": "__gt__", "__le__": "__gt__", "__gt__": "__lt__", "__ge__": "__lt__"}
_CALCULATIONS = remote.ARITHMETIC | {f"__{name}__" for name in remote.UNARY}
_SAYING = ("__bool__", "__len__", "__iter__", "__next__")  # and thereby whether a difference is none
# What data say of themselves. An object that has such a method stands in the place of data.
_SAID_OF_DATA = frozenset(
    {name for kind in (str, float) for name in dir(kind) if name.startswith("is")}
    | {"startswith", "endswith", "issubset", "issuperset", "isdisjoint", "equals"}
)
_AT_ALL = 1  # decoys that an object may equal as well
_HALF = 2  # or one in so many, where the tests have made it: numbers modulo another


class Believing(Peer):
    """An end that is on its guard.

    Args:
        seed: of the decoys.
    """

    def __init__(self, *streams: Any, seed: int) -> None:
        super().__init__(*streams)
        self._decoys = Decoys(seed)
        self._trusted: set[int] = set()  # references of classes
        self._makes_results: set[int] = set()  # of classes whose objects are used like the results of a function
        self._made_here: set[int] = set()  # of objects that the tests have made
        self._doubted: set[int] = (
            set()
        )  # of what is no result: calculated with an object that they have not made, or a comparison
        self._said_of_data: set[int] = set()  # of methods with such names, of objects that they have not made
        self._calls = 0
        self._born: dict[int, int] = {}  # by reference: the call during which an object first arrived

    def trust(self, classes: Iterable[Any], *, but_not_made: Iterable[Any]) -> None:
        """Let objects of these classes of the program equal data. Objects of ``but_not_made`` do so as results, not as made."""
        self._trusted |= {
            found[1] for cls in classes if isinstance(cls, remote_types.RemoteType) and (found := remote.held(cls))
        }
        self._makes_results |= {found[1] for cls in but_not_made if (found := remote.held(cls)) is not None}

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if remote.reference_of(function) in self._said_of_data and not any(map(remote.held, args)):
            raise TypeError("an object that the tests have not made is asked what only data can say of other data")
        self._calls += 1
        began = self._calls
        value = super().call(function, args, kwargs)
        makes = self._is_trusted(function) and remote.reference_of(function) not in self._makes_results
        if makes and (found := remote.held(value)) and self._born.get(found[1], 0) >= began:
            self._made_here.add(found[1])
        return value

    def made(self, kind: str, inner: Any) -> Any:
        if kind == "mine":
            self._born.setdefault(inner[0], self._calls)
            self._made_here.discard(inner[0])  # whoever returns it may return it in the place of data
        return super().made(kind, inner)

    def ask(self, verb: str, *arguments: Any, copies: bool = False) -> Any:
        value = super().ask(verb, *arguments, copies=copies)
        if verb == "get" and (found := remote.held(value)):
            target, name = arguments
            if self._is_trusted(target):  # a constant, or a class in it
                (self._trusted if isinstance(value, remote_types.RemoteType) else self._made_here).add(found[1])
            elif name in _SAID_OF_DATA and not self._is_made_here(target):
                self._said_of_data.add(found[1])
        return value

    def use(self, target: Any, method: str, args: tuple[Any, ...]) -> Any:
        reference = remote.reference_of(target)
        if method in remote.COMPARISONS:
            return self._compared(target, reference, method, args[0])
        if method in _SAYING:
            self._refuse_doubted(target)
        own = reference in self._made_here
        value = super().use(target, method, args)
        found = remote.held(value)
        if method in _CALCULATIONS:
            with_data = method in remote.ARITHMETIC and any(remote.held(arg) is None for arg in args)
            if value is not NotImplemented and (reference in self._doubted or (with_data and not own)):
                if found is None:
                    raise TypeError(f"a {type(target).__name__} of the program is no number")
                self._doubted.add(found[1])
        if own and found and (method in _CALCULATIONS or value is target):
            self._made_here.add(found[1])
        return value

    def is_true(self, target: Any) -> bool:
        self._refuse_doubted(target)
        return super().is_true(target)

    def _refuse_doubted(self, target: Any) -> None:
        if remote.reference_of(target) in self._doubted:
            raise TypeError(
                f"a {type(target).__name__} that the tests have not made is no result of a calculation or comparison"
            )

    def _is_made_here(self, target: Any) -> bool:
        return (found := remote.held(target)) is not None and found[1] in self._made_here

    def _is_trusted(self, cls: Any) -> bool:
        return isinstance(cls, remote_types.RemoteType) and any(
            (found := remote.held(base)) is not None and found[1] in self._trusted for base in cls.__mro__
        )

    def _compared(self, target: Any, reference: int, method: str, other: Any) -> Any:
        if remote.held(other) is not None:
            found = _as_bool(super().use(target, method, (other,)))
            equal = method == "__eq__" and found is True
            return not self._says_so_of_all(target, method, True) if equal else found
        if not self._is_trusted(type(target)):
            return NotImplemented if method != "__contains__" else any(item is other or item == other for item in target)
        own = reference in self._made_here
        try:
            if method in _OPPOSITE:
                return self._ordered(target, method, other) if own else NotImplemented
            return self._equal(target, method, other, own)
        except Foreign:
            return NotImplemented

    def _ordered(self, target: Any, method: str, other: Any) -> Any:
        found = self._no_verdict(self._asked(target, method, other))
        return False if found is True and self._said(target, _OPPOSITE[method], [other]) == [True] else found

    def _equal(self, target: Any, method: str, other: Any, own: bool) -> Any:
        """What it says of ``__eq__``, ``__ne__`` and ``__contains__``, unless it says so of too much else."""
        row, at = ([other], 0) if own and method == "__contains__" else self._decoys.row(other)
        said = self._said(target, method, row)
        if said[at] is None:  # an exception, NotImplemented, or an object that stands for a comparison
            alike = len(row) > 1 and all(one is None for one in said)
            found = self._no_verdict(self._asked(target, method, row[at - 1] if alike else other))
            if alike and found is not NotImplemented and own:  # an object: only now is it told what the tests expect
                found = self._no_verdict(self._asked(target, method, other))
            return NotImplemented if isinstance(found, bool) else found
        claim = method != "__ne__"
        if said[at] is not claim:
            return said[at]
        if len(row) > 1:
            most = min(len(row) // _HALF if own else _AT_ALL, len(row) - 2)
            believed = said.count(claim) - 1 <= most
        else:
            believed = (own or other is not None) and not self._says_so_of_all(target, method, claim)
        return claim if believed else not claim

    def _asked(self, target: Any, method: str, other: Any) -> Any:
        """What its method returns. A copy is sent: what the tests expect must not become the program's to change or return."""
        return self.ask("special", target, method, (other,), copies=True)

    def _no_verdict(self, found: Any) -> Any:
        """What a comparison returned. An object in the place of a truth value may be used, but is none itself."""
        if (held := remote.held(found)) is not None:
            self._doubted.add(held[1])
        return _as_bool(found)

    def _says_so_of_all(self, target: Any, method: str, claim: bool) -> bool:
        return self._said(target, method, _nonces()).count(claim) == len(_nonces())

    def _said(self, target: Any, method: str, row: list[Any]) -> list[bool | None]:
        """What the object says of each value: None for neither true nor false."""
        said = self.ask("compare", target, method, tuple(row), copies=True)
        if not isinstance(said, tuple) or len(said) != len(row):
            raise TypeError("no answer to a comparison")
        return [one if isinstance(one, bool) else None for one in said]


def _as_bool(found: Any) -> Any:
    """Data that a comparison returned, such as 1 or None, as a truth value. All else as it is."""
    return found if found is NotImplemented or remote.held(found) is not None else bool(found)


def _nonces() -> list[Any]:
    """Values that nothing equals but what equals everything."""
    number = int.from_bytes(os.urandom(8), "big") + 2**64
    return [number, str(number), (number,), [number]]
