"""Messages of many small objects, packed in one go.

Ray pickles by a pickler that asks Python about each object on its way, which is right for classes and functions of a script.
What flows between driver and actors has neither, and a sample's few arrays cost it more than the call that carries them.
References to objects must not be in it: Ray has to see those, or their receiver never learns who owns them, and waits for ever.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from typing import Any, NoReturn, TypeVar

import ray

T = TypeVar("T")


def pack(message: Any) -> bytes:
    """Bytes, which Ray passes on as they are. Raises TypeError for a message with a reference to an object."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = copyreg.dispatch_table | {ray.ObjectRef: _refuse}
    pickler.dump(message)
    return file.getvalue()


def _refuse(reference: Any) -> NoReturn:
    raise TypeError(f"{reference} cannot go into a parcel: pass it on as Ray does, beside it")


def unpack(packed: bytes) -> Any:
    """The inverse of ``pack``. Its arrays are the receiver's own."""
    return pickle.loads(packed)


class Parcel(list[T]):
    """A list that arrives as a plain one: for an argument or result whose type is to stay what it is."""

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        return unpack, (pack(list(self)),)
