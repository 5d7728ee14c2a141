"""What every key of the configuration allows, defaults to and means, read from the pydantic models.

``describe`` walks the models themselves, every variant of each union, for the documentation's page; ``annotated`` prints one
configuration as YAML with each key's description, for ``renio config``.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from renio_pipeline.config import variants
from renio_pipeline.config.sections import ObjectiveSection, WeightingSection
from renio_pipeline.config.yaml_text import one_line

_REGISTRIES: dict[Any, variants.Kind] = {WeightingSection: "weighting", ObjectiveSection: "objective"}
REQUIRED = "???"  # OmegaConf's mark of a value that is still missing
_NAMES = {int: "integer", float: "number", str: "text", bool: "true or false", dict: "mapping", type(None): "null", Any: "any"}
_BOUNDS = (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key, as the user writes it."""

    name: str  # dotted; NAME stands for what the user names, N for a place in a list
    variant: str  # which `type` of its section has it; empty where every one has
    allowed: str
    default: str  # as YAML; empty for a key that must be given
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionKeys:
    """A section, or one variant of it, and its own keys."""

    name: str  # dotted; empty for the top level
    variant: str
    model: type[BaseModel]
    text: str
    keys: list[Key]


def describe(model: type[BaseModel], name: str = "", variant: str = "") -> Iterator[SectionKeys]:
    """``model`` and then each section below it, in the order of their fields. A union gives one entry per variant."""
    keys = [key for field_name, field in model.model_fields.items() if (key := _key(name, variant, field_name, field))]
    yield SectionKeys(name=name, variant=variant, model=model, text=_doc(model), keys=keys)
    for field_name, field in model.model_fields.items():
        below = sections_of(field.annotation)
        if not below:
            continue
        inside = ".NAME" if _is_mapping(field.annotation) else ".N" if _is_list(field.annotation) else ""
        path = _joined(name, field_name) + inside
        for section in below:
            yield from describe(section, path, _tag(section) if len(below) > 1 else "")


def annotated(section: BaseModel, names: tuple[str, ...] = ()) -> str:
    """``section`` as YAML: every key with its value, and what it means as a comment. The YAML loads as the same values.

    names: the path from the top to one key or section, which alone is printed. Raises KeyError, with the name and the names
    that exist, where there is none.
    """
    return "\n".join(line for line in _lines(section, names, 0))


def sections_of(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation, whatever union, ``Annotated`` or mapping they stand in; of a registry, all of its models."""
    if annotation in _REGISTRIES:
        return list(variants.sections(_REGISTRIES[annotation]).values())
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for argument in typing.get_args(annotation) for section in sections_of(argument)]


def _lines(section: BaseModel, names: tuple[str, ...], depth: int) -> Iterator[str]:
    fields = type(section).model_fields
    if names and names[0] not in fields:
        raise KeyError(names[0], list(fields))
    for name in names[:1] or fields:
        field, value = fields[name], getattr(section, name, REQUIRED)  # of a section that was made unchecked
        comment = _comment(field, value)
        if value is None and names[1:] and not _is_list(field.annotation) and (below := sections_of(field.annotation)):
            value = below[0].model_construct()  # not configured: show what it would be
        if isinstance(value, BaseModel):
            yield from _head(name, "", _doc(type(value)), depth)
            yield from _lines(value, names[1:], depth + 1)
        elif isinstance(value, Mapping) and value and all(isinstance(item, BaseModel) for item in value.values()):
            yield from _head(name, "", comment, depth)
            if len(names) > 1 and names[1] not in value:
                raise KeyError(names[1], list(value))
            for key in names[1:2] or value:
                yield from _head(key, "", "", depth + 1)
                yield from _lines(value[key], names[2:], depth + 2)
        elif isinstance(value, tuple) and value and all(isinstance(item, BaseModel) for item in value):
            yield from _head(name, "", comment, depth)
            if len(names) > 1 and names[1] not in map(str, range(len(value))):
                raise KeyError(names[1], [str(i) for i in range(len(value))])
            for item in value if len(names) < 2 else [value[int(names[1])]]:
                first, *others = (line for line in _lines(item, names[2:], depth + 2) if not line.strip().startswith("#"))
                yield "  " * (depth + 1) + "- " + first.strip()
                yield from others
        elif len(names) > 1 and not isinstance(value, Mapping):
            raise KeyError(names[1], [])
        else:
            yield from _head(name, _yaml(value), comment, depth)


def _head(name: str, value: str, comment: str, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if comment:
        yield f"{indent}# {comment}"
    yield f"{indent}{name}: {value}".rstrip()


def _comment(field: FieldInfo, value: Any) -> str:
    default = _default(field)
    given = "required" if not default else f"default {default}" if _yaml(value) != default else ""
    facts = "; ".join(part for part in (_allowed(field), given) if part)
    return f"{field.description} ({facts})" if field.description else ""


def _key(section: str, variant: str, name: str, field: FieldInfo) -> Key | None:
    """None for a section that is always there: its own keys say everything."""
    below = sections_of(field.annotation)
    if _is_list(field.annotation) and below:
        return Key(
            name=_joined(section, name), variant=variant, allowed="list of sections or null", default=_default(field),
            text=field.description or "",
        )  # fmt: skip
    if below and not _optional(field.annotation) and not _is_mapping(field.annotation):
        if len(below) == 1:
            return None
        return Key(
            name=f"{_joined(section, name)}.type",
            variant=variant,
            allowed=_listed([f"`{_tag(s)}`" for s in below]),
            default=_tag(type(field.get_default(call_default_factory=True))),
            text="Which variant; each has its own keys.",
        )
    if name == "type" and variant:
        return None  # the union's own key
    allowed = "section or null" if below else _allowed(field)
    if _is_mapping(field.annotation) and below:
        allowed = "mapping of names to sections"
    return Key(
        name=_joined(section, name), variant=variant, allowed=allowed, default=_default(field), text=field.description or ""
    )


def _joined(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _tag(model: type[BaseModel]) -> str:
    return str(model.model_fields["type"].default) if "type" in model.model_fields else model.__name__


def _doc(model: type[BaseModel]) -> str:
    """The first paragraph of its docstring, on one line."""
    return " ".join(inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].replace("``", "`").split())


def _default(field: FieldInfo) -> str:
    return "" if field.is_required() else _yaml(field.get_default(call_default_factory=True))


def _yaml(value: Any) -> str:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else (value,)
    if any(isinstance(each, BaseModel) for each in inner):
        return ""  # it has lines of its own
    if value == REQUIRED:
        return REQUIRED
    return one_line(value)


def _allowed(field: FieldInfo) -> str:
    return _type(field.annotation, [*field.metadata])


def _type(annotation: Any, metadata: list[Any]) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0], [*arguments[1:], *metadata])
    if origin is Literal:
        return _listed([f"`{_yaml(value)}`" for value in arguments])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(argument, metadata if argument is not type(None) else []) for argument in arguments)
    if origin is tuple:
        items = [argument for argument in arguments if argument is not Ellipsis]
        count = "" if Ellipsis in arguments else f"{len(items)} × "
        return f"list of {count}{_type(items[0], [])}"
    return f"{_NAMES.get(origin or annotation, 'section')}{_bounds(metadata)}"


def _listed(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _bounds(metadata: list[Any]) -> str:
    for inner in [m for m in metadata if isinstance(m, FieldInfo)]:
        metadata = [*metadata, *inner.metadata]
    found = [f" {sign} {value}" for name, sign in _BOUNDS for m in metadata if (value := getattr(m, name, None)) is not None]
    return ",".join(found)


def _optional(annotation: Any) -> bool:
    return type(None) in typing.get_args(annotation)


def _is_list(annotation: Any) -> bool:
    return any(typing.get_origin(part) is tuple for part in (annotation, *typing.get_args(annotation)))


def _is_mapping(annotation: Any) -> bool:
    return any(typing.get_origin(part) is dict for part in (annotation, *typing.get_args(annotation)))
