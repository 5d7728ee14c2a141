"""A user's file and the modules beside it: what is found, in which process, and whose module it is."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.config.own.own_file import OwnFile
from renio_pipeline.config.own.own_modules import beside
from renio_pipeline.grading.workers import Question, WorkerPool
from renio_pipeline.sandbox.deadline import Deadline
from renio_pipeline.tasks import make_task
from renio_pipeline.types import Row
from tests.unit.conftest import make_config

ROOT = Path(__file__).parents[3]
ROW = Row(id="1", problem="?", answer="4")
TASK = """
import helper
from parts import rules
from parts.deep.more import LIMIT

class Mine:
    def messages(self, row):
        import late
        return [{"role": "user", "content": f"{helper.WORD} {late.WORD} {rules.rule()} {LIMIT}"}]
    def verify(self, row, text):
        return "correct" if text == helper.WORD else "incorrect"
"""


def lay_out(folder: Path, **changes: str) -> str:
    """A task with a module, one that it imports late, and a package whose modules import each other."""
    files = {
        "mine.py": TASK,
        "helper.py": "from inner import WORD\n",
        "inner.py": "WORD = 'hello'\n",
        "late.py": "WORD = 'late'\n",
        "parts/__init__.py": "",
        "parts/rules.py": "from . import names\nfrom .deep import more\ndef rule(): return names.NAME\n",
        "parts/names.py": "import inner\nNAME = inner.WORD.upper()\n",
        "parts/deep/__init__.py": "",
        "parts/deep/more.py": "LIMIT = 7\n",
        "unrelated.py": "raise RuntimeError('nobody imports this')\n",
    } | {name.replace("__", "/") + ".py": text for name, text in changes.items()}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return f"{folder / 'mine.py'}:Mine"


def asked(task: Any) -> str:
    return task.messages(ROW)[0]["content"]


def test_a_file_finds_the_modules_beside_it_from_any_working_directory(tmp_path: Path) -> None:
    given = lay_out(tmp_path)
    file = OwnFile.read(given, "task")
    names = ["helper", "inner", "late", "parts", "parts.deep", "parts.deep.more", "parts.names", "parts.rules"]
    assert [module.name for module in file.modules] == names
    assert asked(make_task(given)) == "hello late HELLO 7"


def test_what_a_file_imports_with_a_leading_dot_is_beside_it_too(tmp_path: Path) -> None:
    text = "from . import helper\nfrom .inner import WORD\n" + TASK.partition("import helper\n")[2].replace("WORD}", "WORD}", 1)
    assert asked(make_task(lay_out(tmp_path, mine=text))) == "hello late HELLO 7"


def test_two_files_have_each_its_own_module_of_one_name(tmp_path: Path) -> None:
    one, other = lay_out(tmp_path / "one"), lay_out(tmp_path / "other", inner="WORD = 'goodbye'\n")
    tasks = make_task(one), make_task(other)
    assert [asked(task).split()[0] for task in tasks] == ["hello", "goodbye"]
    assert "helper" not in sys.modules, "nobody else's imports see it"


def test_the_standard_library_and_this_project_are_not_taken_from_a_users_folder(tmp_path: Path) -> None:
    given = lay_out(
        tmp_path,
        json="raise RuntimeError",
        renio_pipeline____init__="",
        inner="import json, renio_pipeline.types\nWORD = 'hello'\n",
    )
    (tmp_path / "renio_pipeline").mkdir(exist_ok=True)
    (tmp_path / "renio_pipeline/__init__.py").write_text("raise RuntimeError")
    assert asked(make_task(given)).startswith("hello")


def test_a_file_knows_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path, helper="from pathlib import Path\nWORD = (Path(__file__).parent / 'word.txt').read_text()\n")
    (tmp_path / "word.txt").write_text("read")
    monkeypatch.chdir(tmp_path)
    file = OwnFile.read("mine.py:Mine", "task")
    monkeypatch.chdir("/")
    assert asked(make_task(file)).startswith("read")


def test_what_is_imported_by_name_at_run_time_is_found_in_the_folder(tmp_path: Path) -> None:
    given = lay_out(tmp_path, helper="import importlib\nWORD = importlib.import_module('named_at_run_time_only').WORD\n")
    (tmp_path / "named_at_run_time_only.py").write_text("WORD = 'named'\n")
    assert asked(make_task(given)).startswith("named")


def test_a_fault_in_a_module_beside_a_file_shows_its_lines_and_none_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        make_task(lay_out(tmp_path, inner="WORD = 1 / 0\n"))
    said = str(caught.value)
    assert f'File "{tmp_path / "inner.py"}", line 1' in said
    assert "WORD = 1 / 0" in said
    assert said.endswith("ZeroDivisionError: division by zero")
    assert "own_modules.py" not in said


def test_a_module_that_cannot_be_parsed_says_so(tmp_path: Path) -> None:
    before = set(sys.modules)
    with pytest.raises(ConfigError, match="SyntaxError"):
        make_task(lay_out(tmp_path, inner="WORD =\n"))
    assert not [name for name in set(sys.modules) - before if name.startswith("_renio_own_")], "half of it is kept"


def test_circles_among_modules_and_packages_end() -> None:
    assert beside(Path("/nowhere"), "import a, b.c\nfrom . import d\n") == ()


def elsewhere(code: str, given: bytes, cwd: Path) -> str:
    """What another process prints: as the script ``renio`` starts it, without the working directory on its path."""
    path = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-P", "-c", code], input=given, cwd=cwd, env=path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def test_another_process_needs_neither_the_file_nor_its_folder(tmp_path: Path) -> None:
    lay_out(tmp_path / "project")
    file = OwnFile.read(f"{tmp_path / 'project/mine.py'}:Mine", "task")
    (tmp_path / "project").rename(tmp_path / "gone")
    code = (
        "import pickle, sys\nfrom renio_pipeline.tasks import make_task\nfrom renio_pipeline.types import Row\n"
        "task = make_task(pickle.load(sys.stdin.buffer))\n"
        "print(task.messages(Row(id='1', problem='?'))[0]['content'])"
    )
    assert elsewhere(code, pickle.dumps(file), tmp_path) == "hello late HELLO 7"


def test_a_weighting_travels_with_the_modules_beside_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "words.py").write_text("WORD = 'heavy'\n")
    (folder / "weights.py").write_text(
        "from words import WORD\nfrom renio_pipeline.weightings import Weighting\n"
        "class Mine(Weighting):\n    word: str = WORD\n    def weigh(self, batch, state): return WORD\n"
    )
    weighting = make_config(weighting={"type": "custom", "path": f"{folder / 'weights.py'}:Mine", "word": "w"}).weighting
    folder.rename(tmp_path / "gone")
    code = "import pickle, sys\nw = pickle.load(sys.stdin.buffer)\nprint(w.word, w.weigh(None, None))"
    assert elsewhere(code, pickle.dumps(weighting), tmp_path) == "w heavy"


def test_grading_workers_judge_with_the_code_that_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    task = make_task("mine.py:Mine")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "project/inner.py").write_text("WORD = 'changed'\n")

    async def verdicts() -> list[Any]:
        pool = WorkerPool(task.recipe, Deadline.of(30.0), 1)
        try:
            questions = [Question(verb="grade", row=ROW, text=text) for text in ("hello", "changed")]
            return [answer.value["verdict"] for answer in await pool.ask(questions)]
        finally:
            await pool.close()

    assert asyncio.run(verdicts()) == ["correct", "incorrect"]
