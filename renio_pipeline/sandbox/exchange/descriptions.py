"""What one side tells the other about a class or a function, and what is made of it there."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from renio_pipeline.sandbox.exchange import errors, remote, remote_types

_OWN = ("program", "__main__")  # the modules of the program and of the tests
_NO_KIN = ("object", "Generic", "Protocol", "ABC")  # of these, being derived from one says nothing
_VARIABLE, _KEYWORDS, _GENERATOR, _COROUTINE, _BOTH = 4, 8, 0x20, 0x80, 0x200  # flags of code, as in ``inspect``
_UNSET = object()
_FUNCTION_TYPES = {"function": types.FunctionType, "method": types.MethodType, "builtin": types.BuiltinFunctionType}


def of_class(cls: type, peer: Any) -> dict[str, Any]:
    """Its name, its bases, the special methods that it has itself and, if it is a dataclass, its fields."""
    own = cls.__module__ in _OWN
    error = issubclass(cls, BaseException)
    bases = [packed for base in cls.__bases__ if _is_base(base, error) for packed in peer.attempt(base)] if own or error else []
    special = {m for c in cls.__mro__ if c not in (object, BaseException) for m in vars(c)} & remote.SPECIAL
    foreign = [c for c in cls.__mro__ if c.__module__ not in _OWN]
    kin = next((c for c in foreign if c.__name__ not in _NO_KIN), None)
    fields = getattr(cls, "__dataclass_fields__", None)
    return {
        "name": cls.__name__,
        "doc": cls.__doc__ if isinstance(cls.__doc__, str) else None,
        "error": error,
        "bases": bases,
        "special": sorted(m for m in special if getattr(cls, m) is not getattr(object, m, None)),
        "kin": [kin.__module__, kin.__qualname__] if kin is not None else None,
        "foreign": [[c.__module__, c.__qualname__] for c in foreign],
        "fields": list(fields) if isinstance(fields, dict) else None,
        "match": list(getattr(cls, "__match_args__", ())),
    }


def _is_base(base: type, error: bool) -> bool:
    return base.__module__ in _OWN or (error and issubclass(base, BaseException))


def made_class(facts: dict[str, Any], peer: Any) -> type:
    """Raises ValueError or TypeError for what ``of_class`` cannot have said."""
    bases = tuple(base for base in map(peer.unpack, facts["bases"]) if isinstance(base, type))
    if facts["error"]:
        kinds = tuple(peer.believed(base) for base in bases if issubclass(base, BaseException))
        return errors.remote_class(str(facts["name"]), kinds or (Exception,), facts["doc"])
    return remote_types.remote_class(facts, tuple(base for base in bases if isinstance(base, remote_types.RemoteType)))


def of_function(function: Any) -> dict[str, Any]:
    """Its name, its kind and its parameters: [name, whether it has a default], by their kinds."""
    kind = next((kind for kind, cls in _FUNCTION_TYPES.items() if isinstance(function, cls)), "builtin")
    code = getattr(function, "__code__", None)
    facts = {"name": str(getattr(function, "__name__", "")), "doc": function.__doc__, "kind": kind}
    if not isinstance(code, types.CodeType):
        return facts | {"flags": 0, "parameters": None}
    names, most, bound = code.co_varnames, code.co_argcount, isinstance(function, types.MethodType)
    optional, more = len(function.__defaults__ or ()), function.__kwdefaults__ or {}
    last = most + code.co_kwonlyargcount
    return facts | {
        "flags": code.co_flags & (_GENERATOR | _COROUTINE | _BOTH),
        "parameters": {
            "positional": [[name, at >= most - optional] for at, name in enumerate(names[:most])][bound:],
            "keyword": [[name, name in more] for name in names[most:last]],
            "rest": names[last] if code.co_flags & _VARIABLE else None,
            "others": names[last + bool(code.co_flags & _VARIABLE)] if code.co_flags & _KEYWORDS else None,
        },
    }


def made_function(facts: dict[str, Any], call: Callable[..., Any]) -> Any:
    """A function with the same name and parameters that calls ``call``: a program may look at its signature, and curry it."""
    given = facts["parameters"] or {"positional": [], "keyword": [], "rest": "args", "others": "kwargs"}
    listed = [f"{name}=_renio_unset" if optional else name for name, optional in given["positional"]]
    listed += [f"*{given['rest']}"] if given["rest"] else ["*"] if given["keyword"] else []
    listed += [f"{name}=_renio_unset" if optional else name for name, optional in given["keyword"]]
    listed += [f"**{given['others']}"] if given["others"] else []
    positional, keyword = ("".join(f"({n!r}, {n})," for n, _ in given[kind]) for kind in ("positional", "keyword"))
    forwarded = f"_renio_forward(({positional}), {given['rest'] or ()}, ({keyword}), {given['others'] or {}})"
    later = bool(facts["flags"] & _COROUTINE)
    scope: dict[str, Any] = {"_renio_unset": _UNSET, "_renio_forward": lambda *parts: call(*_bound(*parts))}
    source = f"{'async ' * later}def made({', '.join(listed)}):\n    return {'await ' * later}{forwarded}"
    exec(compile(source, "tests.py", "exec"), scope)
    made = scope["made"]
    made.__name__ = made.__qualname__ = facts["name"]
    made.__doc__, made.__module__ = facts["doc"], "tests"
    return made


def _bound(positional: Any, rest: Any, keyword: Any, others: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments that were given. What follows a positional one that was not can only be passed by its name."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for at, (name, value) in enumerate(positional):
        if value is not _UNSET:
            if at == len(args):
                args.append(value)
            else:
                kwargs[name] = value
    kwargs |= {name: value for name, value in keyword if value is not _UNSET}
    return [*args, *rest], kwargs | others
