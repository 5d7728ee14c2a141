"""Messages of many small objects, packed in one go.

Ray pickles by a pickler that asks Python about each object on its way, which is right for classes and functions of a script.
What flows between driver and actors has neither, and a sample's few arrays cost it more than the call that carries them.

A reference to an object must not be in the packed bytes: Ray has to see it, or its receiver never learns who owns it, and
waits for ever. A ``Parcel`` leaves references to Ray; ``pack`` refuses them.
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
    """Bytes, which Ray passes on as they are. Raises TypeError for a message with a reference to an object."""
    return _pack(message, _refuse)


def unpack(packed: bytes) -> Any:
    """The inverse of ``pack``. Its arrays are the receiver's own."""
    return pickle.loads(packed)


class Parcel(list[T]):
    """A list that arrives as a plain one, with its references: for an argument or result whose type is to stay what it is."""

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
    raise TypeError(f"{reference} cannot be packed: pass it on as Ray does, beside it, or in a Parcel")


_opening = threading.local()  # the references of the parcel that this thread opens


def _open(packed: bytes, references: list[ray.ObjectRef]) -> Any:
    _opening.references = references
    try:
        return pickle.loads(packed)
    finally:
        del _opening.references


def _reference(place: int) -> ray.ObjectRef:
    found: ray.ObjectRef = _opening.references[place]
    return found
