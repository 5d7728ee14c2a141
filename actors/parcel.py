"""Messages of many small objects, packed in one go.

Ray pickles by a pickler that asks Python about each object on its way, which is right for classes and functions of a script.
What flows between driver and actors has neither, and a sample's few arrays cost it more than the call that carries them.
"""

from __future__ import annotations

import pickle
from typing import Any, TypeVar

T = TypeVar("T")


def pack(message: Any) -> bytes:
    """Bytes, which Ray passes on as they are."""
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


def unpack(packed: bytes) -> Any:
    """The inverse of ``pack``. Its arrays are the receiver's own."""
    return pickle.loads(packed)


class Parcel(list[T]):
    """A list that arrives as a plain one: for an argument or result whose type is to stay what it is."""

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        return unpack, (pack(list(self)),)
