"""Exceptions as they cross: of a class that both sides have by name, or of a local one that stands for the original's."""

from __future__ import annotations

from typing import Any

from renio_pipeline.sandbox.exchange import names, remote

_TEXT = "_renio_text"


class RemoteErrorType(type):
    """The class of local exception classes that stand for the other side's: calling one makes the exception there."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if remote.held(cls) is None:  # a class that is derived from one here
            return super().__call__(*args, **kwargs)
        return remote.peer_of(cls).call(cls, args, kwargs)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__") or remote.held(cls) is None:
            raise AttributeError(name)
        return remote.peer_of(cls).ask("get", cls, name)


def remote_class(name: str, bases: tuple[type[BaseException], ...], doc: str | None) -> type[BaseException]:
    """A local class for an exception class of the other side, which is derived from these."""

    def text(self: BaseException) -> str:
        return str(vars(self)[_TEXT]) if _TEXT in vars(self) else bases[0].__str__(self)

    def attribute(self: BaseException, attribute: str) -> Any:
        peer = next((found[0] for cls in type(self).__mro__ if (found := remote.held(cls)) is not None), None)
        if peer is None or attribute.startswith("__"):
            raise AttributeError(attribute)
        return peer.ask("get", self, attribute)

    body = {"__module__": "program", "__doc__": doc, "__str__": text, "__getattr__": attribute}
    try:
        return RemoteErrorType(name, bases, body)  # type: ignore[return-value]
    except TypeError:  # classes of C that do not go together
        return RemoteErrorType(name, bases[:1], body)  # type: ignore[return-value]


def packed(error: BaseException, peer: Any) -> list[Any]:
    """[class, arguments, attributes, text, cause], encoded. The text is from the class's own ``__str__``, if it has one."""
    kind = next(found for cls in type(error).__mro__ for found in peer.attempt(cls))  # or the nearest base that can cross
    arguments = error.__reduce__()[1] if isinstance(error, OSError) else error.args
    (args,) = peer.attempt(list(arguments)) or [[str(error)]]
    attributes = [[name, found] for name, value in vars(error).items() for found in peer.attempt(value)]
    return [kind, args, attributes, _own_text(error), peer.attempt(error.__cause__)]


def _own_text(error: BaseException) -> str | None:
    if names.name_of(type(error)) or type(error).__str__ is BaseException.__str__:
        return None
    try:
        return str(error)
    except Exception:
        return None


def made(reference: int, parts: list[Any], peer: Any) -> BaseException:
    """The exception of these parts. Raises ValueError and TypeError for what ``packed`` cannot have said."""
    kind, args, attributes, text, cause = parts
    cls, arguments = peer.unpack(kind), peer.unpack(args)
    if not (isinstance(cls, type) and issubclass(cls, BaseException)):
        raise ValueError("not an exception")
    cls = peer.believed(cls)
    try:
        error = type.__call__(cls, *arguments)
    except Exception:  # its constructor takes other arguments than it keeps
        error = cls.__new__(cls)
        error.args = tuple(arguments)
    peer.stands_for(error, reference)
    for name, value in attributes:
        vars(error)[str(name)] = peer.unpack(value)
    if text is not None and isinstance(cls, RemoteErrorType):
        vars(error)[_TEXT] = text
    if cause:
        error.__cause__ = peer.unpack(cause[0])
    return error
