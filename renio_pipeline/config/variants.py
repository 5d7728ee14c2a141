"""Sections whose ``type`` chooses a class: ``method``, ``weighting`` and ``objective``.

Weightings and objectives lie above this room: each is one class that has its keys and computes, and a line in its package's
``REGISTRY``. They are looked up by name when a configuration is parsed. This is the one place where a lower layer reaches a
higher one, and import-linter cannot see it; what is loaded here must stay as light as the configuration itself (no torch).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, Literal, cast

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, create_model
from pydantic_core import InitErrorDetails, PydanticCustomError

from renio_pipeline.config.errors import ConfigError
from renio_pipeline.config.nearest import choice, nearest
from renio_pipeline.config.own.own_copies import OwnFiles
from renio_pipeline.config.own.own_file import OwnFile
from renio_pipeline.config.paths import UserPath, expanded
from renio_pipeline.config.schema import METHODS, Section
from renio_pipeline.config.sections import VariantSection

Kind = Literal["method", "weighting", "objective"]
KINDS: tuple[Kind, ...] = ("method", "weighting", "objective")
PACKAGES = {  # a package with a REGISTRY {type: "module:Class"}, and the class that a user's own must derive from
    "weighting": ("renio_pipeline.weightings", "Weighting"),
    "objective": ("renio_pipeline.objectives", "Objective"),
}
CUSTOM = "custom"
FAULT = "variant"  # the type of a fault whose message is complete


class Own(Section):
    """A class of the user's own. Its further keys are the fields of that class."""

    type: Literal["custom"] = "custom"
    path: UserPath = Field(description="The file and the class in it, path.py:Class; relative to the working directory.")


def sections(kind: Kind) -> dict[str, type[Section]]:
    """The section class of each type that a configuration may choose, the default first. Pydantic models: ``model_fields``
    has their keys, defaults and descriptions. ``custom`` stands for any class of the user's own.
    """
    return registered(kind) | ({CUSTOM: Own} if kind in PACKAGES else {})


@cache
def registered(kind: Kind) -> dict[str, type[Section]]:
    """The same without the user's own."""
    if kind not in PACKAGES:
        return dict(METHODS)
    registry: dict[str, str] = import_module(PACKAGES[kind][0]).REGISTRY
    found = {}
    for name, target in registry.items():
        module, _, cls = target.partition(":")
        found[name] = cast(type[Section], getattr(import_module(module), cls))
    return found


def default(kind: Kind) -> Any:
    """The section of a configuration that has none: the first of the registry, with its defaults."""
    return next(iter(registered(kind).values()))()


def chosen(kind: Kind, values: Mapping[str, Any], files: OwnFiles | None = None) -> type[Section]:
    """The class that ``values["type"]`` chooses; without a type the one that a configuration has by default.

    Args:
        files: reads the user's own; None: from where they are.

    Raises:
        ConfigError: the type is unknown, or the user's own file is not usable. The text names the key.
    """
    known = sections(kind)
    name = values.get("type", next(iter(known)))
    if not isinstance(name, str) or name not in known:
        own = f"; a class of your own is {kind}.type=custom with {kind}.path=path.py:Class" if ".py" in str(name) else ""
        raise ConfigError(f"{kind}.type: {name!r} is not known; {choice(name, known)}{own}")
    if name != CUSTOM:
        return known[name]
    path = values.get("path")
    if not isinstance(path, str):
        raise ConfigError(f"{kind}.path: required by type custom; expected path.py:Class")
    key = f"{kind}.path"
    return _own(kind, (files or OwnFiles()).read(expanded(path, key), key))


def chosen_or_none(kind: Kind, section: Any, files: OwnFiles | None = None) -> type[Section] | None:
    """The same of anything that stands in the section's place; None where it chooses no class."""
    try:
        return chosen(kind, section, files) if isinstance(section, dict) else None
    except ConfigError:
        return None


def validator(kind: Kind) -> Callable[[Any, ValidationInfo], Any]:
    """A pydantic validator of the field: a mapping becomes an instance of the class that it chooses. Its context may be the
    ``OwnFiles`` that reads the user's own."""

    def validate(values: Any, info: ValidationInfo) -> Any:
        if isinstance(values, Section):
            return values
        try:
            if not isinstance(values, dict):
                meant = nearest(values, registered(kind)) if isinstance(values, str) else None
                instead = f"; set {kind}.type={meant}" if meant else ""
                raise ConfigError(f"{kind}: expected a mapping with the key type, got {values!r}{instead}")
            cls = chosen(kind, values, info.context)
        except ConfigError as error:
            raise _fault(kind, error, values) from None
        return _validated(cls, kind, values)

    return validate


def _validated(cls: type[Section], kind: Kind, values: Any) -> Section:
    if not issubclass(cls, _Travels):
        return cls.model_validate(values)
    try:
        with cls.file.running("a validator", f"{kind}.path", refuses=True):
            return cls.model_validate(values)
    except ConfigError as error:
        raise _fault(kind, error, values) from None


def _fault(kind: Kind, error: ConfigError, values: Any) -> ValidationError:
    fault = PydanticCustomError(FAULT, "{text}", {"text": str(error)})
    return ValidationError.from_exception_data(kind, [InitErrorDetails(type=fault, input=values)])


@cache
def _own(kind: Kind, file: OwnFile) -> type[Section]:
    """The class of a user's file, with the keys ``type`` and ``path`` beside its own."""
    package, name = PACKAGES[kind]
    interface = cast(type[VariantSection], getattr(import_module(package), name))
    key, cls = f"{kind}.path", file.load(f"{kind}.path")
    if not issubclass(cls, interface):
        raise ConfigError(f"{key}: {file.cls} in {file.path} does not derive from {package}.{name}")
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise ConfigError(f"{key}: {file.cls} in {file.path} does not define {', '.join(missing)}")
    if "path" in cls.model_fields:
        raise ConfigError(f"{key}: {file.cls} in {file.path} has a field path, which is the key that names the file; rename it")
    with file.running("the definition", key):
        made = create_model(file.cls, __base__=(_Travels, cls), __doc__=cls.__doc__)
    return _identified(made, kind, file)


def _identified(cls: Any, kind: Kind, file: OwnFile) -> type[Section]:
    cls.kind, cls.file = kind, file
    return cast(type[Section], cls)


class _Travels(Own):
    """An own class goes to other processes as its source, which need not have the file."""

    model_config = ConfigDict(validate_default=True)  # nobody has tried the defaults of a user's file
    kind: ClassVar[Kind]
    file: ClassVar[OwnFile]

    @property
    def label(self) -> str:
        return self.file.cls

    def guarded(self, method: str, *, refuses: bool = False) -> AbstractContextManager[object]:
        return self.file.running(method, f"{self.kind}.path", refuses=refuses)

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self.kind, self.file, self.model_dump())


def _arrive(kind: Kind, file: OwnFile, values: dict[str, Any]) -> Section:
    return _own(kind, file).model_validate(values)
