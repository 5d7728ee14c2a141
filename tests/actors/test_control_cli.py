"""Commands for a live run: what is refused before Ray, how answers look, and the mailbox without Ray around it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from actors.control import attach, clusters, live_runs, mailbox
from actors.control.mailbox import Control, serve
from renio_pipeline import cli
from renio_pipeline.cli.control import plain
from renio_pipeline.config import ConfigError
from renio_pipeline.control.protocol import Ended, Refused, Unanswered, parse_sizes
from renio_pipeline.control.status_view import reply_lines, status_view

VERBS = ("status", "scale", "pause", "resume", "checkpoint", "stop")
STATUS: dict[str, Any] = {
    "run": "maths", "run_dir": "/runs/maths", "state": "pausing", "step": 12, "steps": 300, "version": 12, "incarnation": 2,
    "pools": {
        "generator": {
            "target": 4, "serving": 3, "starting": 1, "waiting": 0, "queue": 17, "in_flight": 21, "restarts": 2, "idle": 0.125,
        },
        "teacher.maths": {"target": 1, "serving": 1, "queue": 0, "in_flight": 5, "restarts": 0, "idle": None},
        "trainer": {"target": 2, "serving": 2, "restarts": 0},
    },
    "rejected": 3, "replayed_steps": 1,
    "metrics": {"loss": 0.12345, "reward/accuracy": 0.5, "time/step": 4.0, "tokens/generated": 2000.0},
    "events": [[1.7e9 + i, f"event {i}"] for i in range(12)],
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the environment's address nor a Ray that happens to run here."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(clusters, "local_clusters", list)

    def refuse(address: str) -> None:
        raise AssertionError("Ray was joined")

    monkeypatch.setattr(attach, "_connect", refuse)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    try:
        found: object = cli.main(arguments)
    except SystemExit as end:  # argparse's own way
        found = end.code
    assert found == code
    written = capsys.readouterr()
    assert written.out == ""
    return written.err


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("generator", "expected POOL=REPLICAS, for example generator=4"),
        ("generator=", "'' is no number of replicas"),
        ("generator=0", "generator=0: '0' is no number of replicas; give a positive integer"),
        ("generator=-1", "give a positive integer"),
        ("generator=1.5", "give a positive integer"),
        ("generator=²", "give a positive integer"),
        ("generator=9999999999", "give a positive integer"),
        ("trainer=2", "'trainer' has no size to change; allowed: generator, teacher, or teacher.NAME"),
        ("teacher.=2", "allowed: generator, teacher, or teacher.NAME"),
        ("generator.x=2", "allowed: generator, teacher, or teacher.NAME"),
    ],
)
def test_sizes_that_are_none_are_refused_before_ray(capsys: pytest.CaptureFixture[str], given: str, text: str) -> None:
    shown = fails(capsys, "scale", "teacher=1", given, "--address", "127.0.0.1:1")
    assert shown.startswith("error: scale: ")
    assert text in shown


def test_sizes() -> None:
    assert parse_sizes(["generator=4", "teacher=02", "teacher.maths-7b=1"]) == {
        "generator": 4,
        "teacher": 2,
        "teacher.maths-7b": 1,
    }
    with pytest.raises(ConfigError, match="generator is given twice, 4 and 5"):
        parse_sizes(["generator=4", "generator=5"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["scale"], "POOL=REPLICAS"),
        (["pause", "now"], "unrecognized arguments: now"),
        (["status", "--timeout", "0"], "'0' is no time; give a positive number of seconds"),
        (["status", "--timeout", "nan"], "'nan' is no time"),
        (["status", "--watch", "-1"], "is no time"),
        (["stop", "--watch", "1"], "unrecognized arguments: --watch"),
        (["status", "--watch", "1", "--json"], "--watch shows many answers, and --json prints one"),
        (["status", "--address", "local"], "'local' means a new Ray, which has no runs"),
        (["status", "--address", "nonsense"], "'nonsense': expected HOST:PORT or ray://HOST:PORT"),
        (["status", "--address", "http://x:1"], "http://x:1 is the address of a dashboard, to which `ray job submit`"),
        (["status", "--address", "127.0.0.1:99999"], "no Ray cluster answers at 127.0.0.1:99999"),
        (["status", "--address", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1: "),
        (["status"], "this machine has no Ray; for another machine's, give --address or RAY_ADDRESS"),
    ],
    ids=" ".join,
)
def test_bad_input_is_exit_code_2_before_ray(capsys: pytest.CaptureFixture[str], arguments: list[str], text: str) -> None:
    assert text in " ".join(fails(capsys, *arguments).split())


def test_the_address_is_the_one_given_then_the_environments_then_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr(clusters, "local_clusters", lambda: ["10.0.0.1:2", "10.0.0.1:1"])
    assert clusters.addresses(None) == clusters.addresses("auto") == ["10.0.0.1:2", "10.0.0.1:1"]
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert clusters.addresses(None) == ["10.0.0.2:6379"]
    assert clusters.addresses("10.0.0.3:6379") == ["10.0.0.3:6379"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_tells_the_verbs_apart(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit):
        cli.main([verb, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ("train --resume" in text) == (verb == "resume")
    assert f"(default {10 if verb == 'status' else 600})" in text


def drawn(status: dict[str, Any], width: int = 80) -> list[str]:
    console = Console(file=StringIO(), width=width, highlight=False)
    console.print(status_view(status))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def cells(lines: list[str], pool: str) -> list[str]:
    return next(line for line in lines if line.split()[:1] == [pool]).split()


def test_a_status_is_drawn() -> None:
    lines = drawn(STATUS)
    assert lines[0] == "maths  pausing  step 12/300  version 12, restart epoch 2"
    assert cells(lines, "generator") == ["generator", "3/4", "1", "0", "17", "21", "12%", "2"]
    assert cells(lines, "teacher.maths") == ["teacher.maths", "1/1", "-", "-", "0", "5", "-", "0"]
    assert cells(lines, "trainer") == ["trainer", "2/2", "-", "-", "-", "-", "-", "0"]
    figures = "loss 0.1235  accuracy 0.50  4.00 s a step  500 tokens/s  3 quarantined  1 steps replayed"
    assert figures in " ".join(lines)
    assert lines[1].split() == ["pool", "serving/target", "starting", "waiting", "queue", "in", "flight", "idle", "restarts"]
    assert "run directory: /runs/maths" in lines
    assert [line.split("  ")[1] for line in lines[-8:]] == [f"event {i}" for i in range(4, 12)]


@pytest.mark.parametrize("status", [{}, {"pools": None, "metrics": None, "events": None}, {"pools": {"generator": {}}}])
def test_a_status_that_says_little_is_drawn(status: dict[str, Any]) -> None:
    assert drawn(status)[0] == "-  -  step -/-  version -"


def test_a_run_that_has_not_stepped_has_no_figures() -> None:
    assert not any("loss" in line for line in drawn({**STATUS, "metrics": {}, "rejected": 0, "replayed_steps": 0}))


def test_names_and_events_are_no_markup() -> None:
    assert drawn({"run": "[red]x[/red]", "events": [[0.0, "[bold]lost[/bold]"]]})[0].startswith("[red]x[/red]  -")


def test_the_other_replies_are_sentences() -> None:
    assert reply_lines("r", "pause", {"state": "paused"}) == ["r: paused"]
    assert reply_lines("r", "checkpoint", {"step": 3, "path": "/x"}) == ["r: checkpoint of step 3 in /x"]
    assert reply_lines("r", "stop", {"step": 3}) == ["r: told to stop, at step 3"]
    assert reply_lines("r", "scale", {"teacher": {"target": 2, "serving": 1}}) == ["r: teacher: 2 wanted, 1 serving now"]


def test_what_json_cannot_hold_is_made_plain() -> None:
    found = plain({"a": np.float32(0.5), "b": np.int64(2), "c": (float("nan"), float("inf")), 1: None, "d": [True, "x"]})
    assert json.loads(json.dumps(found, allow_nan=False)) == {"a": 0.5, "b": 2, "c": [None, None], "1": None, "d": [True, "x"]}


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Clusters that can be joined without Ray: address -> the live runs there. ray.shutdown() does nothing there."""
    runs: dict[str, list[str]] = {}
    here = [""]

    def connect(address: str) -> None:
        if address not in runs:
            raise ConnectionError("no token")
        here[0] = address

    monkeypatch.setattr(attach, "probe", lambda address, key, seconds: None)
    monkeypatch.setattr(attach, "_connect", connect)
    monkeypatch.setattr(live_runs, "live_runs", lambda: runs[here[0]])
    return runs


def found(name: str | None, *addresses: str) -> str:
    with live_runs.joined(name, addresses, time.monotonic() + 60) as run:
        return run


def test_a_run_is_found_among_several_clusters(joined: dict[str, list[str]]) -> None:
    joined.update({"h:1": ["a", "b"], "h:2": ["c"], "h:3": []})
    assert found("c", "h:1", "h:2", "h:3") == found(None, "h:2") == "c"
    assert found(None, "h:3", "h:2") == found(None, "h:9", "h:2") == "c"  # h:9 lets nobody in
    with pytest.raises(ConfigError, match=r"2 runs are live: a \(at h:1\), b \(at h:1\); say which with --run$"):
        found(None, "h:1")
    with pytest.raises(ConfigError, match="no run 'x' is live at h:1 or h:2; live are a, b, c"):
        found("x", "h:1", "h:2")
    with pytest.raises(ConfigError, match=r"no run is live on the Ray cluster at h:9 or h:3\n  no way into .* h:9: no token"):
        found(None, "h:9", "h:3")
    with pytest.raises(ConfigError, match="no way into the Ray cluster at h:9: no token; if it asks for a token"):
        found("c", "h:9")
    joined["h:4"] = ["c"]
    with pytest.raises(ConfigError, match=r"2 runs are live: c \(at h:2\), c \(at h:4\); say which with --address"):
        found("c", "h:2", "h:4")


def test_a_cluster_that_lets_nobody_in_is_given_up_in_time(
    joined: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "_connect", lambda address: time.sleep(20))
    started = time.monotonic()
    with (
        pytest.raises(Unanswered, match="did not let this process in within 1 s; is it Ray"),
        live_runs.joined("c", ["h:1"], started),
    ):
        pass
    assert time.monotonic() - started < 10


class Method:
    """As an actor's method: ``.remote()`` starts it."""

    def __init__(self, method: Any) -> None:
        self._method = method

    def remote(self, *arguments: Any) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self._method(*arguments))


class Handle:
    """As the handle of an actor."""

    def __init__(self, actor: Control) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Method:
        return Method(getattr(self._actor, name))


async def served(commands: Any) -> Any:
    """``commands(control, gate)`` with a driver whose verb "wait" ends when ``gate`` is set; the driver is then cancelled."""
    control, gate = Control({"run": "r"}), asyncio.Event()

    async def handle(verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if verb == "refuse":
            raise Refused("not now")
        if verb == "fail":
            raise KeyError("pool")
        if verb == "wait":
            await gate.wait()
        return {"verb": verb, **arguments}

    driver = asyncio.create_task(serve(Handle(control), handle))
    try:
        return await commands(control, gate)
    finally:
        driver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driver
        with pytest.raises(Ended, match="the run is ending"):
            await control.ask("status", {})


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def test_commands_are_answered_beside_one_that_takes_long() -> None:
    async def commands(control: Control, gate: asyncio.Event) -> None:
        long = asyncio.create_task(control.ask("wait", {}))
        assert await control.ask("status", {"a": 1}) == {"verb": "status", "a": 1}
        with pytest.raises(Refused, match=r"^not now$"):
            await control.ask("refuse", {})
        with pytest.raises(Refused, match=r"^KeyError: 'pool'$"):
            await control.ask("fail", {})
        assert not long.done()
        gate.set()
        assert await long == {"verb": "wait"}

    run(served(commands))


def test_an_asker_that_goes_away_breaks_nothing() -> None:
    async def commands(control: Control, gate: asyncio.Event) -> None:
        gone = asyncio.create_task(control.ask("wait", {}))
        await asyncio.sleep(0.1)
        gone.cancel()
        with pytest.raises(Unanswered, match=r"no answer to wait within 0\.1 s; its driver has begun it and goes on with it"):
            await control.ask("wait", {}, 0.1)
        gate.set()
        assert await control.ask("status", {}) == {"verb": "status"}

    run(served(commands))


def test_a_command_that_nobody_took_up_is_withdrawn() -> None:
    async def commands() -> None:
        control = Control()
        with pytest.raises(Unanswered, match=r"no answer to stop within 0\.1 s; it is withdrawn"):
            await control.ask("stop", {}, 0.1)
        asking = asyncio.create_task(control.ask("pause", {"a": 1}))
        ticket, verb, arguments = await control.next()
        assert (verb, arguments) == ("pause", {"a": 1})
        await control.answer(ticket, {"state": "paused"})
        await control.answer(ticket, {"state": "again"})  # and a second answer is nobody's
        assert await asking == {"state": "paused"}

    run(commands())


def test_a_driver_that_ends_refuses_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "PARTING_SECONDS", 0.1)

    async def both() -> None:
        left: list[asyncio.Task[Any]] = []

        async def commands(control: Control, gate: asyncio.Event) -> None:
            left.append(asyncio.create_task(control.ask("wait", {})))
            await asyncio.sleep(0.1)

        await served(commands)
        with pytest.raises(Ended, match="the run is ending"):
            await left[0]

    run(both())


def test_what_is_about_to_end_when_the_driver_ends_is_answered() -> None:
    async def both() -> None:
        left: list[asyncio.Task[Any]] = []

        async def commands(control: Control, gate: asyncio.Event) -> None:
            left.append(asyncio.create_task(control.ask("wait", {})))
            await asyncio.sleep(0.1)
            gate.set()  # and the driver is cancelled before its handler runs on

        await served(commands)
        assert await left[0] == {"verb": "wait"}

    run(both())
