"""Values as YAML that ``load`` reads back as themselves, whatever text is in them.

Two things would change a text otherwise. OmegaConf takes ``${...}`` for a reference to another key, and its loader takes more
texts for numbers than PyYAML's dumper quotes, such as 1e3. One text cannot be written: ``???``, OmegaConf's mark of a value
that is still missing, which no configuration has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml
from omegaconf import OmegaConf

_REFERENCE = re.compile(r"(\\*)\$\{")


def document(values: Mapping[str, Any]) -> str:
    """A mapping as a YAML file."""
    return OmegaConf.to_yaml(OmegaConf.create(_escaped(values)))


def one_line(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.dump(_escaped(value), Dumper=_Dumper, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _escaped(value: Any) -> Any:
    """The value with every ``${`` escaped: by a backslash, and backslashes just before it doubled."""
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: found[1] * 2 + r"\${", value)
    if isinstance(value, Mapping):
        return {key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list | tuple) else value


class _Dumper(yaml.SafeDumper):
    """Quotes every text that could be a number or a truth value to some reader of YAML, and line breaks of all kinds."""

    def text(self, value: str) -> yaml.ScalarNode:
        ambiguous = _is_number(value) or value.lower() in {"y", "n", "yes", "no", "on", "off", "true", "false"}
        style = '"' if value and value.splitlines() != [value] else "'" if ambiguous else None
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _Dumper.text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
