"""The reference of every configuration key, as Markdown, from the pydantic models.

python docs/generate/configuration.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from renio_pipeline.config import RunConfig
from renio_pipeline.config.describe import Key, SectionKeys, describe


def page() -> str:
    """A heading and a table for each section; sections of one model are listed once, and the others refer to it."""
    return "\n\n".join(text for text in _sections())


def _sections() -> Iterator[str]:
    first: dict[type, SectionKeys] = {}
    copies: list[str] = []
    for section in describe(RunConfig):
        if any(section.name.startswith(f"{copy}.") for copy in copies):
            continue
        if (same := first.setdefault(section.model, section)) is section:
            yield f"{_heading(section)}\n\n{_text(section)}\n\n{_table(section)}"
        else:
            copies.append(section.name)
            yield f"{_heading(section)}\n\nThe same keys as [`{same.name}`](#{_anchor(same.name, same.variant)})."


def _heading(section: SectionKeys) -> str:
    if not section.name:
        return "### The run itself {#top-level}"
    variant = f": `type: {section.variant}`" if section.variant else ""
    return f"### `{section.name}`{variant} {{#{_anchor(section.name, section.variant)}}}"


def _text(section: SectionKeys) -> str:
    return "Keys that belong to no section." if not section.name else section.text


def _anchor(name: str, variant: str = "") -> str:
    return "-".join(filter(None, [name.lower().replace(".", "-"), variant])).replace("_", "-")


def _table(section: SectionKeys) -> str:
    if not section.keys:
        return "No keys of its own." if section.variant else ""
    return "\n".join(["| key | allowed | default | meaning |", "| --- | --- | --- | --- |", *map(_row, section.keys)])


def _row(key: Key) -> str:
    default = f"`{key.default}`" if key.default else "**required**"
    return f"| `{key.name}` | {key.allowed} | {default} | {key.text} |".replace("\n", " ")


if __name__ == "__main__":
    print(page())
