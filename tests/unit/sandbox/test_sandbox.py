"""Programs that try to get out of their box. Each is also run without one, where it does its harm: else it proves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.sandbox.box import Box, Ended, check
from renio_pipeline.sandbox.limits import Limits

SMALL = Limits(seconds=1, memory_mb=256, files_mb=16, output_kb=64)


def bare(code: str, folder: Path) -> str:
    """What a program prints that runs as any other."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout


def boxed(code: str, limits: Limits = SMALL, mode: Any = "strict", seconds: float = 10) -> str:
    """What it prints in a box, and how it ended where that was not well."""
    with Box(limits, mode=mode) as box:
        box.post({"kind": "script", "code": code})
        try:
            reply = box.reply(seconds)
        except (Ended, TimeoutError) as error:
            return type(error).__name__
        return str(reply["output"]) + ("" if reply["status"] == 0 else f" status {reply['status']}")


def running(word: str) -> list[int]:
    """Processes with this word in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if word in (folder / "cmdline").read_bytes().decode(errors="replace").split("\0"):
                found.append(int(folder.name))
    return found


def gone(word: str, seconds: float = 3) -> bool:
    until = time.monotonic() + seconds
    while running(word) and time.monotonic() < until:
        time.sleep(0.02)
    return not running(word)


@pytest.fixture
def nap() -> Iterator[str]:
    """How long the sleepers of this test sleep: their mark among all processes."""
    seconds = f"57.{uuid.uuid4().int % 10**9:09}"
    yield seconds
    for pid in running(seconds):
        os.kill(pid, signal.SIGKILL)


SOURCES = pytest.param("/usr/src", marks=pytest.mark.skipif(not os.access("/usr/src", os.W_OK), reason="not ours to write"))


@pytest.fixture(params=["home", "elsewhere", SOURCES])
def secret(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    folder = {"home": Path.home(), "elsewhere": tmp_path}.get(request.param) or Path(request.param)
    path = folder / f".renio-{uuid.uuid4().hex}"
    path.write_text("my secret")
    path.chmod(0o644)
    yield path
    path.unlink()


def test_a_file_of_the_user_cannot_be_read(secret: Path, tmp_path: Path) -> None:
    code = f"print(open({str(secret)!r}).read())"
    assert bare(code, tmp_path) == "my secret\n"
    assert "my secret" not in boxed(code)
    assert boxed(f"import os; print(os.path.exists({str(secret)!r}))") == "False\n"


def test_the_environment_is_not_to_be_seen(nap: str, tmp_path: Path) -> None:
    subprocess.Popen(["/usr/bin/sleep", nap], env={"RENIO_SECRET": "my secret"})
    code = """
import os, glob
found = str(os.environ)
for path in glob.glob("/proc/*/environ"):
    try: found += open(path).read()
    except OSError: pass
print("my secret" in found)
"""
    assert bare(code, tmp_path) == "True\n"
    assert boxed(code) == "False\n"


@pytest.mark.parametrize("family", ["inet", "abstract"])
def test_there_is_no_network(family: str, tmp_path: Path) -> None:
    kind, address = (socket.AF_INET, ("127.0.0.1", 0)) if family == "inet" else (socket.AF_UNIX, f"\0renio-{uuid.uuid4().hex}")
    with socket.socket(kind) as server:
        server.bind(address)
        server.listen()
        code = f"""
import socket
s = socket.socket(socket.{kind.name})
s.settimeout(2)
s.connect({server.getsockname()!r})
print("connected")
"""
        assert bare(code, tmp_path) == "connected\n"
        assert "connected" not in boxed(code)


def test_sockets_that_reach_out_of_a_network_namespace_cannot_be_made(tmp_path: Path) -> None:
    code = """
import socket
for family in ("VSOCK", "NETLINK", "PACKET", "ALG", "INET", "INET6", "UNIX"):
    kind = socket.SOCK_STREAM if family in ("VSOCK", "INET", "INET6", "UNIX") else socket.SOCK_RAW
    try: socket.socket(getattr(socket, "AF_" + family), kind).close()
    except OSError as error: print(error.errno, end=" ")
    else: print("made", end=" ")
print(len(socket.socketpair()))
"""
    assert bare(code, tmp_path).split()[1] == "made"  # netlink, on every machine
    assert boxed(code) == "97 97 97 97 made made made 2\n"


FLEE = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in range(3): os.close(fd)
        os.execv("/usr/bin/sleep", ["sleep", "{nap}"])
    os._exit(0)
os.wait()
time.sleep(0.1)
print("left")
"""


def test_no_process_is_left_behind(nap: str, tmp_path: Path) -> None:
    assert bare(FLEE.format(nap=nap), tmp_path) == "left\n"
    assert running(nap), "without a box it stays"
    for pid in running(nap):
        os.kill(pid, signal.SIGKILL)
    assert gone(nap)
    with Box(SMALL) as box:
        box.post({"kind": "script", "code": FLEE.format(nap=nap)})
        assert box.reply(10)["output"] == "left\n"  # it did what it set out to do
        assert gone(nap), "what a program started ends with it, not with the box alone"


def test_processes_are_counted(nap: str, tmp_path: Path) -> None:
    code = f"""
import os, time
made = 0
try:
    for _ in range(60):
        if os.fork() == 0:
            os.execv("/usr/bin/sleep", ["sleep", "{nap}"])
        made += 1
except OSError: pass
print(made, flush=True)
os.killpg(0, 9)
"""
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True).stdout == b"60\n"
    assert 1 <= int(boxed(code).split()[0]) < SMALL.processes
    assert gone(nap)


@pytest.mark.slow
def test_a_fork_bomb_ends_with_its_box() -> None:
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    assert boxed(bomb, Limits(seconds=1, processes=4)) in (" status -9", "Ended")  # its first process has no CPU time left
    assert boxed("print(1)") == "1\n"


@pytest.mark.slow
def test_memory_is_bounded(tmp_path: Path) -> None:
    code = "print(len(bytearray(400 << 20)) >> 20)"
    assert bare(code, tmp_path) == "400\n"
    assert boxed(code) == " status 1"
    assert boxed(code, Limits(memory_mb=512)) == "400\n"


@pytest.mark.parametrize("maker", ["make()", "threading.Thread(target=make).start()"], ids=["main", "a thread"])
@pytest.mark.slow
def test_memory_is_bounded_over_all_processes(maker: str, tmp_path: Path) -> None:
    code = f"""
import os, threading, time
read, write = os.pipe()
def make():
    for _ in range(6):
        if os.fork() == 0:
            held = b"x" * (60 << 20)
            os.write(write, b"x")
            time.sleep(0.6)
            os._exit(0)
    time.sleep(1)
{maker}
count = 0
while count < 6: count += len(os.read(read, 6))
time.sleep(0.2)
print("all held")
"""
    assert bare(code, tmp_path) == "all held\n"
    assert boxed(code) == "Ended"
    assert boxed(code, Limits(memory_mb=1024)) == "all held\n"


def test_memory_that_belongs_to_no_process_is_refused(tmp_path: Path) -> None:
    code = "import os\nprint(os.write(os.memfd_create('x'), b'x' * 1000))"
    assert bare(code, tmp_path) == "1000\n"
    assert boxed(code) == " status 1"


@pytest.mark.parametrize("files", [1, 8])
def test_files_are_bounded(files: int, tmp_path: Path) -> None:
    code = f"""
import os
for number in range({files}):
    with open(str(number), "wb") as file:
        for _ in range(24 // {files}): file.write(bytes(1 << 20)); file.flush()
print("written")
"""
    assert bare(code, tmp_path) == "written\n"
    assert "written" not in boxed(code)


@pytest.mark.parametrize(
    "path", ["/usr/renio-test", os.path.dirname(os.__file__) + "/renio-test", "/renio-test", "/dev/renio-test"]
)
def test_nothing_can_be_written_outside_of_its_folder(path: str, tmp_path: Path) -> None:
    code = f"import os\nopen({path!r}, 'w').close()\nos.unlink({path!r})\nprint('written')"
    if os.access(os.path.dirname(path), os.W_OK):
        assert bare(code, tmp_path) == "written\n"
    assert boxed(code) == " status 1"


def test_each_program_begins_in_an_empty_folder_and_may_write_there() -> None:
    with Box(SMALL) as box:
        for _ in range(2):
            box.post(
                {
                    "kind": "script",
                    "code": "import os\nprint(os.listdir('.'))\nopen('a', 'w').write('x')\nprint(open('a').read())",
                }
            )
            assert box.reply(10)["output"] == "[]\nx\n"


def test_output_ends_where_its_limit_is(tmp_path: Path) -> None:
    assert len(bare("print('x' * (3 << 20))", tmp_path)) > 3 << 20
    for code in ("print('x' * (3 << 20))", "while True: print('x' * 1000)", "import os\nwhile True: os.write(2, b'x' * 1000)"):
        with Box(SMALL) as box:
            box.post({"kind": "script", "code": code})
            reply = box.reply(10)
        assert len(reply["output"]) <= SMALL.output_kb << 10
        assert reply["over"] or reply["status"] != 0


STUBBORN = """
import signal
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(number, lambda *_: None)
"""


@pytest.mark.parametrize("before", ["", STUBBORN], ids=["plain", "with signal handlers"])
@pytest.mark.slow
def test_an_endless_loop_ends(before: str, tmp_path: Path) -> None:
    code = before + "\nprint('begun', flush=True)\nwhile True: pass"
    with pytest.raises(subprocess.TimeoutExpired) as still_running:
        subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=0.7, check=False)
    assert still_running.value.stdout == b"begun\n"
    assert boxed(code, seconds=30) in ("begun\n status -9", "begun\n status -24")  # of CPU time, whatever the clock says


def test_a_program_that_sleeps_for_ever_is_given_up_and_ended(nap: str) -> None:
    began = time.monotonic()
    with Box(SMALL) as box:
        box.post({"kind": "script", "code": f"import os\nos.execv('/usr/bin/sleep', ['sleep', '{nap}'])"})
        with pytest.raises(TimeoutError):
            box.reply(0.5)
        assert running(nap)
    assert gone(nap)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("target", ["1", "-1", "os.getppid()"])
def test_a_program_that_kills_all_it_sees_hurts_itself_alone(target: str) -> None:
    with Box(SMALL) as box:
        box.post({"kind": "script", "code": f"import os\nos.kill({target}, 9)\nos.kill({target}, 15)"})
        with contextlib.suppress(Ended):
            box.reply(10)
    assert boxed("print(1)") == "1\n"


@pytest.mark.parametrize("call", ["libc.unshare(0x10000000)", "libc.ptrace(0, 0, 0, 0)", "libc.memfd_create(b'x', 0)"])
def test_calls_that_could_lift_a_limit_are_refused(call: str, tmp_path: Path) -> None:
    code = f"import ctypes\nlibc = ctypes.CDLL(None)\nprint({call} >= 0)"
    assert bare(code, tmp_path) == "True\n"
    assert boxed(code) == "False\n"


def test_it_is_nobody_and_stays_it() -> None:
    assert int(boxed("import os\nprint(os.getuid())")) != 0
    assert boxed("import os\nos.setuid(0)\nprint('root')") == " status 1"
    assert boxed("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nprint('lifted')") == " status 1"


def test_nothing_survives_its_owner(nap: str) -> None:
    code = f"""
import sys, time
from renio_pipeline.sandbox.box import Box
from renio_pipeline.sandbox.limits import Limits
box = Box(Limits())
box.post({{"kind": "script", "code": "import os\\nos.execv('/usr/bin/sleep', ['sleep', '{nap}'])"}})
time.sleep(60)
"""
    owner = subprocess.Popen([sys.executable, "-c", code])
    until = time.monotonic() + 20
    while not running(nap) and time.monotonic() < until:
        time.sleep(0.05)
    assert running(nap)
    owner.kill()
    owner.wait()
    assert gone(nap)


def test_where_the_kernel_refuses_namespaces_the_user_is_told_and_may_say_weak(tmp_path: Path) -> None:
    code = """
from renio_pipeline.sandbox import kernel
from renio_pipeline.sandbox.box import check
kernel.no_new_privileges()
kernel.refuse_calls()  # as a container's own filter does
check("weak")
check("strict")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "ConfigError: task_options.sandbox: strict is not possible on this machine" in done.stderr
    assert "unshare: Operation not permitted" in done.stderr
    assert "task_options.sandbox=weak" in done.stderr


@pytest.mark.parametrize("program", ["leaves", "multiplies"])
def test_a_weak_box_too_leaves_no_process_behind(program: str, nap: str) -> None:
    multiply = f"import os, time\nfor _ in range(60):\n    if os.fork() == 0: os.execv('/usr/bin/sleep', ['sleep', '{nap}'])\n"
    printed = boxed(FLEE.format(nap=nap) if program == "leaves" else multiply + "time.sleep(1)\nprint('all')", mode="weak")
    assert printed == "left\n" if program == "leaves" else "all" not in printed
    assert running(nap) == []


@pytest.mark.slow
def test_weak_keeps_the_limits_and_no_more(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("my secret")
    assert boxed("print(len(bytearray(400 << 20)))", mode="weak") == " status 1"
    assert boxed("while True: pass", mode="weak") in ("TimeoutError", " status -9", " status -24")
    assert boxed(f"print(open({str(secret)!r}).read())", mode="weak") == "my secret\n"


AS_A_USER = """
import os, sys, sysconfig
from pathlib import Path
from renio_pipeline.sandbox import kernel
kernel.unshare(kernel.NEWNS)
kernel.mount("none", "/", None, kernel.RECURSIVE | kernel.PRIVATE)
kernel.mount("tmpfs", "/mnt", "tmpfs", 0, "mode=755")  # a copy of Python that others than root may run
sources = {
    "python": sys.base_prefix, "source": str(Path(kernel.__file__).parents[2]), "packages": sysconfig.get_path("purelib"),
}
for name, source in sources.items():
    os.mkdir("/mnt/" + name)
    kernel.bind(source, "/mnt/" + name)
os.chdir("/")
os.setgroups([]); os.setresgid(4321, 4321, 4321); os.setresuid(4321, 4321, 4321)
environment = {"PYTHONPATH": "/mnt/source:/mnt/packages"}
os.execve("/mnt/python/bin/python3", ["/mnt/python/bin/python3", "-B", "-c", sys.argv[1]], environment)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="every other test here runs as an ordinary user already")
def test_an_ordinary_user_has_the_same_box() -> None:
    program = """import json, os, socket, time
reached = socket.socket().connect_ex(("1.1.1.1", 80)) == 0
print(json.dumps([os.getuid(), os.getpid(), sorted(os.listdir("/")), reached]))
made = 0
try:
    for _ in range(60):
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
        made += 1
except OSError: print(made)
"""
    user = f"""
from renio_pipeline.sandbox.box import Box
from renio_pipeline.sandbox.limits import Limits
with Box(Limits()) as box:
    box.post({{"kind": "script", "code": {program!r}}})
    print(box.reply(20)["output"])
"""
    done = subprocess.run([sys.executable, "-c", AS_A_USER, user], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    first, *made = done.stdout.splitlines()
    uid, pid, root, reached = json.loads(first)
    assert (uid, pid, reached) == (4321, 2, False)
    assert not {"home", "root", "proc", "work"} & set(root)
    assert 1 <= int(made[0]) < Limits().processes


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second user")
def test_what_else_a_user_runs_does_not_count_for_a_weak_box() -> None:
    program = "import threading\nt = threading.Thread(target=print, args=(1,))\nt.start()\nt.join()"
    user = f"""
import subprocess
from renio_pipeline.sandbox.box import Box
from renio_pipeline.sandbox.limits import Limits
others = [subprocess.Popen(["/usr/bin/sleep", "50"]) for _ in range(18)]
with Box(Limits(), mode="weak") as box:
    box.post({{"kind": "script", "code": {program!r}}})
    print(box.reply(20)["output"])
for other in others: other.kill()
"""
    done = subprocess.run([sys.executable, "-c", AS_A_USER, user], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "1", done.stderr


def test_a_box_that_cannot_be_made_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Limits, "settings", lambda self, mode, folder: {"strict": True, "visible": ["/usr"], "folder": "/no/where"}
    )
    with pytest.raises(ConfigError, match=r"task_options\.sandbox: strict is not possible"):
        check("strict")
