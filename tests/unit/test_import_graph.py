"""The layout's rules: no circles between rooms, few files at the library's root, no crowded room; and the picture of it."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.generate import import_graph
from docs.generate.import_graph import ROOT, Graph, faults


def test_the_code_keeps_the_rules() -> None:
    assert faults(ROOT) == []


def project(root: Path, files: dict[str, str]) -> Path:
    for name in ("renio_pipeline/__init__.py", "actors/__init__.py", *files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(files.get(name, ""))
    return root


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    text = "if TYPE_CHECKING:\n    from renio_pipeline.b import c\ndef f():\n    import actors.d\n"
    empty = dict.fromkeys(("renio_pipeline/b/__init__.py", "renio_pipeline/b/c.py", "actors/d.py"), "")
    graph = import_graph.module_graph(import_graph.sources(project(tmp_path, {"renio_pipeline/a.py": text, **empty})))
    assert graph["renio_pipeline.a"] == {"renio_pipeline.b.c", "actors.d"}
    assert import_graph.room_graph(graph)["renio_pipeline.a"] == {"renio_pipeline.b", "actors.d"}


def test_a_circle_between_rooms_is_a_fault_although_no_modules_import_each_other(tmp_path: Path) -> None:
    rooms = {f"renio_pipeline/{room}/{name}.py": "" for room in "ab" for name in ("__init__", "one", "two")}
    rooms |= {
        "renio_pipeline/a/one.py": "import renio_pipeline.b.one",
        "renio_pipeline/b/two.py": "import renio_pipeline.a.two",
    }
    assert faults(project(tmp_path, rooms)) == ["rooms that import each other: renio_pipeline.a, renio_pipeline.b"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({f"renio_pipeline/m{i}.py": "" for i in range(12)}, "renio_pipeline/ has 13 files at its root"),
        ({f"actors/room/m{i}.py": "" for i in range(21)}, "actors/room/ has 21 files"),
    ],
)
def test_crowded_places_are_faults(tmp_path: Path, files: dict[str, str], said: str) -> None:
    (found,) = faults(project(tmp_path, files))
    assert said in found


def test_a_picture_has_every_room_above_what_it_imports_and_no_line_that_a_longer_way_implies() -> None:
    graph: Graph = {"renio_pipeline.a": {"renio_pipeline.b", "actors.c"}, "renio_pipeline.b": {"actors.c"}, "actors.c": set()}
    assert import_graph.layers(graph) == [["actors.c"], ["renio_pipeline.b"], ["renio_pipeline.a"]]
    assert import_graph.reduced(graph)["renio_pipeline.a"] == {"renio_pipeline.b"}
    assert import_graph.circles(graph) == []
    drawn = "".join(ElementTree.fromstring(import_graph.picture(graph)).itertext())
    assert all(name in drawn for name in graph)
    assert "renio_pipeline.b imports actors.c" in drawn
    assert "renio_pipeline.a imports actors.c" not in drawn


def test_every_room_has_a_sign() -> None:
    rows = [line for line in import_graph.rooms_table().splitlines() if line.startswith("| `")]
    assert len(rows) > 20
    assert [row for row in rows if not row.split("|")[3].strip()] == []
