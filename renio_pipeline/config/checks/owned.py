"""What the pipeline sets by itself."""

from __future__ import annotations

from typing import Any


def refuse_owned(section: str, given: dict[str, Any], owned: dict[str, str]) -> None:
    """Raises ValueError if ``given`` has a key that the pipeline sets; ``owned``: the setting to use instead, by key."""
    for key, setting in owned.items():
        outer, _, inner = key.partition(".")
        if outer in given and (not inner or (isinstance(given[outer], dict) and inner in given[outer])):
            instead = f"; set {setting.format(pool=section.removesuffix('.engine'))} instead" if setting else ""
            raise ValueError(f"{section}.{key} is set by the pipeline itself{instead}")
