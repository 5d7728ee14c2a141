"""The import graph of the code's rooms: read from the source, checked against the layout's rules, drawn as SVG.

A room is a package below ``renio_pipeline`` or ``actors``; a module at their roots stands for itself. Every import statement
counts, lazy ones and those under TYPE_CHECKING too.

python docs/generate/import_graph.py > graph.svg      # exit code 1, and the rules that are broken, if there are any
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("renio_pipeline", "actors")
MOST_ROOT_ENTRIES, MOST_FILES = 12, 20
Graph = dict[str, set[str]]  # importer -> what it imports


def sources(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the packages by its dotted name; a package by its own name."""
    files = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    names = [path.relative_to(root).with_suffix("").parts for path in files]
    return {".".join(n[:-1] if n[-1] == "__init__" else n): path for n, path in zip(names, files, strict=True)}


def module_graph(modules: Mapping[str, Path]) -> Graph:
    """Which module imports which, as the statements say it: ``from package import module`` imports the module."""
    return {name: set(_imported(path, modules)) - {name} for name, path in modules.items()}


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def room_graph(graph: Graph) -> Graph:
    """The same between rooms. The packages' own ``__init__`` files, which hold a sign and the version, are left out."""
    rooms: Graph = {room_of(name): set() for name in graph if name not in PACKAGES}
    for name, imported in graph.items():
        if name not in PACKAGES:
            rooms[room_of(name)] |= {room_of(other) for other in imported if other not in PACKAGES} - {room_of(name)}
    return rooms


def circles(graph: Graph) -> list[list[str]]:
    """Groups of nodes that reach each other (Tarjan's strongly connected components of more than one node)."""
    found: list[list[str]] = []
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def faults(root: Path = ROOT) -> list[str]:
    """Which of the layout's rules are broken."""
    graph = module_graph(sources(root))
    found = [f"modules that import each other: {', '.join(group)}" for group in circles(graph)]
    found += [f"rooms that import each other: {', '.join(group)}" for group in circles(room_graph(graph))]
    library = root / PACKAGES[0]
    entries = [path.name for path in library.iterdir() if path.is_file()]
    if len(entries) > MOST_ROOT_ENTRIES:
        found.append(f"{PACKAGES[0]}/ has {len(entries)} files at its root, above {MOST_ROOT_ENTRIES}: {sorted(entries)}")
    for folder in sorted({path.parent for path in sources(root).values()}):
        if (count := len(list(folder.glob("*.py")))) > MOST_FILES:
            found.append(f"{folder.relative_to(root)}/ has {count} files, above {MOST_FILES}")
    return found


def layers(graph: Graph) -> list[list[str]]:
    """Nodes by how many imports lie below them, the foundation first; neighbours stand near what they import."""
    height: dict[str, int] = {}

    def rise(node: str) -> int:
        if node not in height:
            height[node] = 0  # in case of a circle
            height[node] = max((rise(other) + 1 for other in graph[node]), default=0)
        return height[node]

    for node in graph:
        rise(node)
    rows = [sorted(n for n in graph if height[n] == level) for level in range(max(height.values(), default=0) + 1)]
    place = {name: (i + 0.5) / len(row) for row in rows for i, name in enumerate(row)}
    for row in rows[1:]:
        row.sort(key=lambda name: sum(place[o] for o in graph[name]) / max(1, len(graph[name])))
        place |= {name: (i + 0.5) / len(row) for i, name in enumerate(row)}
    return rows


def reduced(graph: Graph) -> Graph:
    """Without the edges that a longer way implies, so that a picture can be read. For graphs without circles."""
    below: dict[str, set[str]] = {}

    def reach(node: str) -> set[str]:
        if node not in below:
            below[node] = set()
            below[node] = graph[node].union(*(reach(other) for other in graph[node]))
        return below[node]

    return {node: {o for o in others if not any(o in reach(p) for p in others - {o})} for node, others in graph.items()}


def picture(graph: Graph) -> str:
    """The rooms as SVG: each above all that it imports; a line to each one that no longer way leads to."""
    width, gap, box = 1180, 78, 30
    rows = layers(graph)
    middle, half, top = {}, {}, {}
    for level, row in enumerate(reversed(rows)):
        sizes = [8 * len(_label(name)) + 18 for name in row]
        space = (width - sum(sizes)) / (len(row) + 1)
        left = space
        for name, size in zip(row, sizes, strict=True):
            middle[name], half[name], top[name] = left + size / 2, size / 2, 10 + level * gap
            left += size + space
    lines = [
        f'<path d="M{middle[a]:.0f},{top[a] + box} C{middle[a]:.0f},{top[a] + box + 30} {middle[b]:.0f},{top[b] - 30} '
        f'{middle[b]:.0f},{top[b]}"><title>{a} imports {b}</title></path>'
        for a, others in sorted(reduced(graph).items())
        for b in sorted(others)
    ]
    boxes = [
        f"<g><title>{name}</title>"
        + "".join(
            f'<rect class="{kind}" x="{middle[name] - half[name]:.0f}" y="{top[name]}" width="{2 * half[name]:.0f}" '
            f'height="{box}" rx="6"/>'
            for kind in ("paper", name.split(".")[0])  # the first one hides the lines that pass behind
        )
        + f'<text x="{middle[name]:.0f}" y="{top[name] + 20}">{_label(name)}</text></g>'
        for name in sorted(graph)
    ]
    style = (
        "path{fill:none;stroke:currentColor;stroke-opacity:.35} text{font:14px monospace;text-anchor:middle;fill:currentColor} "
        "rect{stroke:currentColor;stroke-opacity:.5;fill-opacity:.18} "
        ".paper{fill:var(--md-default-bg-color,#fff);fill-opacity:1} .renio_pipeline{fill:#3f51b5} .actors{fill:#e65100}"
    )
    height = 20 + (len(rows) - 1) * gap + box
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        f"<title>Which room imports which</title><style>{style}</style>{''.join(lines)}{''.join(boxes)}</svg>"
    )


def rooms_table(root: Path = ROOT) -> str:
    """A Markdown table of rooms: files, and the first sentence of each one's sign."""
    modules = sources(root)
    lines = ["| room | files | what is in it |", "| --- | ---: | --- |"]
    for room in sorted(
        {room_of(name) for name in modules if name not in PACKAGES}, key=lambda r: (r.split(".")[0] != PACKAGES[0], r)
    ):
        path = modules[room]
        files = len(list(path.parent.glob("*.py"))) if path.name == "__init__.py" else 1
        place = path.parent if path.name == "__init__.py" else path
        shown = str(place.relative_to(root)) + ("/" if path.name == "__init__.py" else "")
        lines.append(f"| `{shown}` | {files} | {_first_sentence(path)} |")
    return "\n".join(lines)


def _first_sentence(path: Path) -> str:
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    return text.replace("``", "`").replace("|", "\\|")


def _label(name: str) -> str:
    return name.removeprefix("renio_pipeline.")


def _imported(path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else node.module for name in below]
        else:
            continue
        yield from (name for name in names if name in modules)


if __name__ == "__main__":
    print(picture(room_graph(module_graph(sources()))))
    broken = faults()
    print(*broken, sep="\n", file=sys.stderr)
    sys.exit(bool(broken))
