"""`python -m tests.gpu`: a row for each check whatever becomes of it, and the real checks that need no engine, on a CPU."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.gpu import __main__ as command
from tests.gpu import runner, table, versions
from tests.gpu.check import Check, Figure
from tests.gpu.checks import CHECKS, by_name
from tests.gpu.parts import write_kit
from tests.gpu.runner import ROOT, Row
from tests.gpu.settings import make
from tests.unit.made_up_wheels import wheel

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
HANG = """yield Figure('child', subprocess.Popen(['sleep', '600']).pid)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)"""
MADE_UP = {  # functions of a module of checks, and how long each may take
    "passes": ("yield Figure('width', 2, 'm', most=3)", 60.0),
    "breaks_a_bound": ("yield Figure('width', 4, 'm', most=3)\n    yield Figure('height', 1)", 60.0),
    "asserts": ("yield Figure('width', 1)\n    assert False, 'it is | crooked'", 60.0),
    "raises": ("print('deep | inside')\n    yield Figure('width', 1)\n    raise KeyError('a key')", 60.0),
    "dies": ("yield Figure('width', 1)\n    os._exit(7)", 60.0),
    "hangs": (HANG, 4.0),
    "imports_the_kit": ("import carried\n    yield Figure('carried', carried.VALUE)", 60.0),
}


def checks() -> list[Check]:
    made = [Check(name=f"a-{name}", function=f"made_up:{name}", seconds=s) for name, (_, s) in MADE_UP.items()]
    absent = Check(name="b-absent", function="made_up:passes", seconds=60, needs=("no_such_package",))
    return [*made, absent, Check(name="c-gpu", function="made_up:passes", seconds=60, gpu=True)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """All of them in one command: exit code, rows by check, and the table. Their processes find them by a start-up file."""
    folder = tmp_path_factory.mktemp("check")
    body = "import os, signal, subprocess, time\nfrom tests.gpu.check import Figure\n"
    body += "".join(f"def {name}(settings):\n    {text}\n" for name, (text, _) in MADE_UP.items())
    (folder / "made_up.py").write_text(body)
    register = "import sys, made_up, tests.gpu.checks as c\nfrom tests.unit.test_gpu_check import checks\n"
    (folder / "sitecustomize.py").write_text(
        "import sys\nif 'tests.gpu.process' in sys.orig_argv:\n"
        f"    exec({register!r})\n    sys.modules['tests.gpu.checks.made_up'] = made_up\n    c.CHECKS = tuple(checks())\n"
    )
    kit = wheel(folder, "carried", {"carried.py": b"VALUE = 42\n"})
    write_kit(folder / "kit", [(kit, None)], python=PYTHON, part_bytes=10**6)
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(folder))
    patch.setattr(command, "CHECKS", tuple(checks()))
    patch.setattr(runner, "GRACE", 1.0)
    arguments = ["--device", "cpu", "--small", "--out", str(folder / "out"), "--kit", str(folder / "kit")]
    code = command.main([*arguments, "--unpacked", str(folder / "unpacked")])
    patch.undo()
    written = json.loads((folder / "out" / table.JSON).read_text())
    rows = {row["check"]: row for row in written["rows"]}
    return code, rows, (folder / "out" / table.MARKDOWN).read_text(), written["machine"]


@pytest.mark.slow
def test_one_that_fails_stops_nothing_and_shows_in_the_exit_code(found: Any) -> None:
    code, rows, *_ = found
    assert code == 1
    assert list(rows) == [check.name for check in checks()]
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "a-passes": "passed",
        "a-breaks_a_bound": "failed",
        "a-asserts": "failed",
        "a-raises": "failed",
        "a-dies": "failed",
        "a-hangs": "failed",
        "a-imports_the_kit": "passed",
        "b-absent": "not run",
        "c-gpu": "not run",
    }


@pytest.mark.slow
def test_each_row_says_why_in_words_and_keeps_the_figures_measured_before(found: Any) -> None:
    _, rows, *_ = found
    assert rows["a-breaks_a_bound"]["why"] == "out of bounds: width 4 m (at most 3)"
    assert [f["name"] for f in rows["a-breaks_a_bound"]["figures"]] == ["width", "height"]
    assert rows["a-asserts"]["why"] == "it is | crooked"
    assert rows["a-raises"]["why"] == "KeyError: 'a key'"
    assert "deep | inside" in rows["a-raises"]["log"]
    assert rows["a-dies"]["why"] == "its process ended with code 7"
    assert rows["a-hangs"]["why"] == "no end within 4 s"
    assert rows["b-absent"]["why"] == "no_such_package is not installed"
    assert rows["c-gpu"]["why"] == "needs a GPU"
    assert all(rows[f"a-{name}"]["figures"][0]["value"] for name in MADE_UP)
    assert rows["a-imports_the_kit"]["figures"][0]["value"] == 42


@pytest.mark.slow
def test_a_check_that_hangs_leaves_no_process(found: Any) -> None:
    child = int(found[1]["a-hangs"]["figures"][0]["value"])
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_a_check_ends_with_the_process_that_started_it() -> None:
    text = "import time; from tests.gpu.process import end_with; end_with({parent}); print('up', flush=True); time.sleep(60)"
    starter = (
        "import os, subprocess, sys, time\n"
        f"text = {text!r}.format(parent=os.getpid())\n"
        "child = subprocess.Popen([sys.executable, '-c', text], start_new_session=True, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)\n"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", starter], cwd=ROOT, env=runner.environment(None), text=True, stdout=subprocess.PIPE
    )
    assert started.stdout is not None
    child = psutil.Process(int(started.stdout.readline()))
    assert child.is_running()
    started.kill()
    started.communicate()
    child.wait(timeout=30)


@pytest.mark.slow
def test_the_table_is_one_line_a_check_below_the_machine(found: Any) -> None:
    _, rows, text, machine = found
    lines = text.splitlines()
    assert list(machine)[:7] == ["device", "driver", "CUDA", "torch", "vllm", "deepspeed", "ray"]
    assert lines[2].startswith("device: CPU (")
    begun = [line for line in lines if line.startswith(("| a-", "| b-", "| c-"))]
    assert len(begun) == len(rows)
    assert all(line.replace("\\|", "").count("|") == 5 for line in begun)
    assert lines[-1] == "2 passed, 5 failed, 2 not run"


@pytest.mark.slow
def test_what_is_not_run_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "CHECKS", tuple(checks()))
    arguments = ["--device", "cpu", "--out", str(tmp_path), "--until", "-1"]
    assert command.main(arguments) == 0
    rows = json.loads((tmp_path / table.JSON).read_text())["rows"]
    assert {row["why"] for row in rows} == {"--until -1 seconds were over"}


def test_a_kit_that_is_of_no_use_here_is_an_error_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = ["--unpacked", str(tmp_path / "there"), "--out", str(tmp_path / "out"), "--until", "-1"]
    assert command.main(["--device", "cpu", "--kit", str(tmp_path), *there]) == 1
    assert "--kit: " in (text := capsys.readouterr().err)
    assert "is not a kit" in text
    write_kit(tmp_path, [(wheel(tmp_path, "carried", {"carried.py": b""}), None)], python="3.1", part_bytes=10**6)
    assert command.main(["--device", "cpu", "--kit", str(tmp_path), *there]) == 1
    assert f"its packages are for Python 3.1, and this is {PYTHON}" in capsys.readouterr().err
    assert command.main(["--device", "cpu", *there]) == 1  # unpacked before, and still for another Python
    assert "--unpacked: its packages are for Python 3.1" in capsys.readouterr().err


@pytest.mark.parametrize("value", [math.nan, math.inf, 3.5])
def test_what_is_too_large_breaks_its_bound_and_so_does_not_a_number(value: float) -> None:
    assert Figure("x", value, most=3).broken
    assert not Figure("x", value).broken


@pytest.mark.parametrize("value", [math.nan, -math.inf, 0.5])
def test_what_is_too_small_breaks_its_bound_and_so_does_not_a_number(value: float) -> None:
    assert Figure("x", value, least=1).broken
    assert not Figure("x", 1.0, least=1, most=1).broken


def test_every_check_has_its_function_and_its_group() -> None:
    names = [check.name for check in CHECKS]
    assert names == sorted(names, key=lambda name: name[0])
    assert len(set(names)) == len(names)
    for check in CHECKS:
        module, _, function = check.function.partition(":")
        __import__(f"tests.gpu.checks.{module}")
        assert callable(getattr(sys.modules[f"tests.gpu.checks.{module}"], function)), check.name
    with pytest.raises(ValueError, match="there is no check 'x'; there are a-"):
        by_name("x")


def test_naming_the_checks_loads_neither_torch_nor_ray() -> None:
    text = "import sys, tests.gpu.__main__; print([m for m in ('torch', 'ray', 'vllm', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, env=runner.environment(None), capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_both_sizes_are_of_both_devices() -> None:
    for device in ("cuda", "cpu"):
        real, small = make(device=device, small=False), make(device=device, small=True)
        assert real.main.hidden == 2048
        assert small.main.hidden < 100
        assert (real.engine_options == {}) == (device == "cpu")
        assert 0 < small.vocabulary < small.rows


def test_versions_name_what_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "PACKAGES", ("pytest", "no-such-package"))
    found = versions.machine("cpu")
    assert found["pytest"] == pytest.__version__
    assert found["no-such-package"] == "not installed"


@pytest.mark.slow
@pytest.mark.slow
def test_the_losses_and_packed_rows_pass_here_with_small_shapes(tmp_path: Path) -> None:
    started = time.monotonic()
    names = ["a-head-and-packing-main", "a-losses", "a-tests"]
    assert command.main(["--small", "--device", "cpu", "--out", str(tmp_path), "--only", *names]) == 0
    rows = [Row(**row) for row in json.loads((tmp_path / table.JSON).read_text())["rows"]]
    assert {row.check: row.outcome for row in rows} == dict(zip(names, ["passed", "passed", "not run"], strict=True))
    assert all(row.figures for row in rows if row.outcome == "passed")
    print(f"{time.monotonic() - started:.0f} s of {os.cpu_count()} CPUs")
