"""Messages of many small objects, pickled by the standard library in one go.

Ray's own pickler calls back into Python for every object that it meets, which it needs for classes and functions defined in a
script. Messages between driver and actors have neither, and for a sample's few arrays that costs more than the remote call.

Packed bytes must not hold a Ray object reference. Ray has to see each reference that it passes on; otherwise the receiver never
learns who owns the object, and waits forever. ``PackedList`` hands its references to Ray; ``pack`` refuses them.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import threading
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import ray

T = TypeVar("T")


def pack(message: Any) -> bytes:
    """Pickle a message into bytes, which Ray passes on as they are. Raises TypeError if it holds an object reference."""
    return _pack(message, _refuse)


def unpack(packed: bytes) -> Any:
    """The inverse of ``pack``. The arrays of the result are the receiver's own copies."""
    return pickle.loads(packed)


class PackedList(list[T]):
    """A list that is packed when Ray sends it and arrives as a plain list. It may hold object references."""

    def __reduce__(self) -> tuple[Any, tuple[bytes, list[ray.ObjectRef]]]:
        places: dict[ray.ObjectRef, int] = {}

        def lift(reference: ray.ObjectRef) -> tuple[Any, tuple[int]]:
            return _reference, (places.setdefault(reference, len(places)),)

        return _open, (_pack(list(self), lift), list(places))


def _pack(message: Any, reference: Callable[[Any], Any]) -> bytes:
    file = io.BytesIO()
    pickler = pickle.Pickler(file, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = copyreg.dispatch_table | {ray.ObjectRef: reference}
    pickler.dump(message)
    return file.getvalue()


def _refuse(reference: Any) -> NoReturn:
    raise TypeError(f"{reference} cannot be packed: pass it as an argument of its own, or use PackedList")


_opening = threading.local()  # the references of the list that this thread is unpacking


def _open(packed: bytes, references: list[ray.ObjectRef]) -> Any:
    _opening.references = references
    try:
        return pickle.loads(packed)
    finally:
        del _opening.references


def _reference(place: int) -> ray.ObjectRef:
    found: ray.ObjectRef = _opening.references[place]
    return found
