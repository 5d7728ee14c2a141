"""Whole programs read their input and print their output in every way that programs do, and are judged right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from renio_pipeline.tasks import make_task
from renio_pipeline.types import Row


@pytest.fixture(scope="module")
def task() -> Any:
    return make_task("code", {"seconds": 6})


def verdict(task: Any, code: str, inputs: list[str], outputs: list[str]) -> Any:
    row = Row(id="0", problem="?", tests=json.dumps({"inputs": inputs, "outputs": outputs}))
    assert task.fault(row) is None
    return task.verify(row, f"```python\n{code}\n```")


POOL = "def sq(x): return x * x\nif __name__ == '__main__':\n    "
PRINTED = {
    "to a file that nobody closes": "out = open(1, 'w')\nout.write('7')",
    "to a descriptor that nobody closes": "import os\nout = os.fdopen(1, 'w')\nprint(7, file=out)",
    "through a stream of another encoding": "import io, sys\n"
    "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\nprint(7)",
    "before the stream is replaced": "import io, sys\nprint(7)\nsys.stdout = io.StringIO()\nprint(8)",
    "by what ends with it": "class A:\n    def __del__(self): print(7)\na = A()",
    "by a function at exit": "import atexit\natexit.register(print, 7)",
    "and the program leaves at once": "import os, sys\nprint(7)\nsys.stdout.flush()\nos._exit(0)",
    "by a thread with a large stack": "import sys, threading\nsys.setrecursionlimit(1 << 25)\nthreading.stack_size(1 << 28)\n"
    "def f(n): return 7 if n == 0 else f(n - 1)\nt = threading.Thread(target=lambda: print(f(200000)))\nt.start()\nt.join()",
    "by a pool of processes": f"from multiprocessing import Pool\n{POOL}with Pool(2) as p: print(sum(p.map(sq, [1, 2])) + 2)",
    "by processes that are not forked": f"import multiprocessing as mp\n{POOL}mp.set_start_method('spawn')\n"
    "    with mp.Pool(1) as p: print(p.map(sq, [1])[0] + 6)",
    "by a coroutine": "import asyncio\nasync def main(): print(7)\nasyncio.run(main())",
    "from where the program lies": "import os\nprint(6 + os.path.exists(__file__))",
    "though a thread still sleeps": "import threading, time\nprint(7)\n"
    "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
}  # fmt: skip


@pytest.mark.parametrize("code", PRINTED.values(), ids=PRINTED.keys())
def test_what_is_printed_counts_however_it_is(task: Any, code: str) -> None:
    assert verdict(task, code, [""], ["7"]) == "correct"
    assert verdict(task, code, [""], ["8"]) == "incorrect"


READ = {
    "input": "a = input()\nb = input()",
    "input until its end": "lines = []\ntry:\n    while True: lines.append(input())\nexcept EOFError: a, b = lines",
    "a prompt to nobody": "import sys\nsys.stderr.write('a? ')\na, b = input(), input()",
    "the stream's lines": "import sys\na, b = (line.strip() for line in sys.stdin)",
    "bytes": "import sys\na, b = (part.decode() for part in sys.stdin.buffer.read().split())",
    "descriptor 0": "a, b = open(0).read().split()",
    "os.read": "import os\na, b = os.read(0, os.fstat(0).st_size).decode().split()",
    "a device": "a, b = open('/dev/stdin').read().split()",
    "a memory map": "import mmap, sys\na, b = mmap.mmap(sys.stdin.fileno(), 0, prot=mmap.PROT_READ).read().decode().split()",
    "twice": "import sys\nsys.stdin.read()\nsys.stdin.seek(0)\na, b = sys.stdin.read().split()",
    "fileinput": "import fileinput\na, b = (line.strip() for line in fileinput.input())",
    "a file that is there at home": "import os, sys\n"
    "if os.path.exists('in.txt'): sys.stdin = open('in.txt')\na, b = input(), input()",
    "a thread": "import asyncio, sys\nasync def main():\n    global a, b\n"
    "    a, b = (await asyncio.to_thread(sys.stdin.read)).split()\n"
    "asyncio.run(main())",
}  # fmt: skip


@pytest.mark.parametrize("code", READ.values(), ids=READ.keys())
def test_input_is_there_however_it_is_read(task: Any, code: str) -> None:
    assert verdict(task, f"{code}\nprint(int(a) + int(b))", ["3\n4\n", "5\r\n6"], ["7", "11"]) == "correct"


def test_input_that_ends_too_early_is_an_error(task: Any) -> None:
    assert verdict(task, "print(7, flush=True)\ninput()", [""], ["7"]) == "incorrect"


@pytest.mark.parametrize("folder", [".", "/box", "/dev/shm"])
def test_what_a_program_leaves_behind_is_gone_before_its_next_input(task: Any, folder: str) -> None:
    code = f"import os\nos.makedirs('{folder}/a/b', exist_ok=False)\nopen('{folder}/a/c', 'wb').write(bytes(600_000))\nprint(7)"
    assert verdict(task, code, ["", "", ""], ["7", "7", "7"]) == "correct"


def test_text_that_cannot_be_written_is_a_fault_of_the_row(task: Any) -> None:
    tests = json.dumps({"inputs": ["\ud800"], "outputs": ["1"]})
    assert "surrogates" in task.fault(Row(id="0", problem="?", tests=tests))
