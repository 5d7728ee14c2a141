"""The command line: exit codes and messages of what fails before Ray starts, and what importing it costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from renio_pipeline import cli
from renio_pipeline.config import ConfigError
from renio_pipeline.config.own.own_file import OwnClassError
from tests.unit.conftest import values

ROOT = Path(__file__).parents[2]
COMMANDS = ("train", "check", "eval", "demo")
EACH_COMMAND = pytest.mark.parametrize("command", COMMANDS)


@pytest.fixture(autouse=True)
def process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """main() belongs at the top of a process: take back what it sets there."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting or joining a cluster is a failure of the test: exit code 1, not 2."""
    from actors.cluster import connection

    def refuse(address: str | None) -> Any:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(connection, "connect", refuse)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    small = {"max_response_tokens": 48, "data": {"problems": 8}, "evaluate": {"problems": 4}, "name": "cli"}
    OmegaConf.save(OmegaConf.create(values(**small)), path)
    return str(path)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Run the command, which must fail with ``code``; what it wrote to stderr."""
    assert cli.main(arguments) == code
    written = capsys.readouterr()
    assert written.out == ""
    traceback, _, text = written.err.rpartition("error: ")
    assert ("Traceback (most recent call last)" in traceback) == (code == 1), "only a failure that is no ConfigError shows it"
    assert code == 1 or not traceback
    return text.removesuffix("\n")


@pytest.mark.parametrize(("command", "place"), [(c, "overrides") for c in COMMANDS] + [("plan", "things")])
def test_overrides_may_stand_before_between_and_after_options(command: str, place: str) -> None:
    words = [command, "steps=3", "--config", "a.yaml", "lr=1", "--config", "b.yaml", "name=x"]
    args = cli._parser().parse_args(words)
    assert getattr(args, place) == ["steps=3", "lr=1", "name=x"]
    assert args.config == ["a.yaml", "b.yaml"]


@EACH_COMMAND
def test_an_option_that_does_not_exist_is_refused_among_overrides(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main([command, "--config", "a.yaml", "steps=3", "--step=4", "name=x"])
    assert "unrecognized arguments: --step=4" in capsys.readouterr().err


@EACH_COMMAND
def test_an_unknown_key_is_exit_code_2_and_the_right_name(
    capsys: pytest.CaptureFixture[str], config: str, command: str
) -> None:
    text = fails(capsys, command, "--config", config, "stepps=3")
    assert text == f"{config}:\n  stepps: unknown key; did you mean steps?"


@EACH_COMMAND
def test_a_missing_configuration_is_exit_code_2(capsys: pytest.CaptureFixture[str], command: str) -> None:
    text = fails(capsys, command, "--config", "/no/such.yaml")
    assert text == "configuration file /no/such.yaml does not exist"


@EACH_COMMAND
def test_a_malformed_override_is_exit_code_2(capsys: pytest.CaptureFixture[str], config: str, command: str) -> None:
    text = fails(capsys, command, "--config", config, "steps")
    assert text == "override 'steps': expected key=value, for example steps=10"


@EACH_COMMAND
@pytest.mark.usefixtures("no_ray")
def test_a_missing_model_is_exit_code_2_before_ray_starts(
    capsys: pytest.CaptureFixture[str], config: str, command: str
) -> None:
    key = "student" if command == "eval" else "teacher.model"  # evaluation asks no teacher
    text = fails(capsys, command, "--config", config, f"{key}=/no/such/model")
    assert text == f"{key}: model folder '/no/such/model' does not exist"


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("command", ["train", "demo"])
def test_the_directory_of_another_run_is_exit_code_2_and_left_alone(
    capsys: pytest.CaptureFixture[str], config: str, tmp_path: Path, command: str
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.yaml").write_text("theirs")
    text = fails(capsys, command, "--config", config, f"run_dir={old}")
    assert text.startswith(f"run_dir: {old} is another run's directory (it is not empty)")
    assert [(p.name, p.read_text()) for p in old.iterdir()] == [("config.yaml", "theirs")]


@pytest.mark.parametrize(("gain", "code"), [(0.3, 0), (0.1, 1)])
def test_a_demo_that_does_not_meet_its_criteria_is_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, config: str, gain: float, code: int
) -> None:
    outcome = {
        "evaluations": {0: {"accuracy": 0.4}, 100: {"accuracy": 0.4 + gain}},
        "auroc": 0.95,
        "first_step": {"pivotal/fraction": 0.1, "weights/wrong_over_right": 3.0},
    }
    monkeypatch.setattr("renio_pipeline.cli.run._run", lambda *given, **more: outcome)
    assert cli.main(["demo", "--config", config]) == code
    assert ("demo failed: accuracy rose by 10.0%, expected at least 20%" in capsys.readouterr().err) == bool(code)


@pytest.mark.usefixtures("no_ray")
def test_bad_data_is_exit_code_2_and_leaves_no_run_directory(
    capsys: pytest.CaptureFixture[str], config: str, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("nonsense\n")
    text = fails(capsys, "train", "--config", config, f"data.path={rows}", f"run_dir={tmp_path / 'new'}")
    assert text.startswith(f"data.path: {rows}, line 1: not JSON")
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("no_ray")
def test_evaluating_on_no_problems_is_exit_code_2(capsys: pytest.CaptureFixture[str], config: str) -> None:
    assert "evaluate.problems: 0" in fails(capsys, "eval", "--config", config, "evaluate.problems=0")


@pytest.mark.usefixtures("no_ray")
def test_a_good_configuration_goes_on_to_ray(capsys: pytest.CaptureFixture[str], config: str, tmp_path: Path) -> None:
    text = fails(capsys, "train", "--config", config, f"run_dir={tmp_path / 'new'}", code=1)
    assert text.startswith("AssertionError: Ray was started")


def failing_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def load(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(cli.run, "load", load)


class FakeRemoteError(Exception):
    """As Ray's: a traceback for its text, and the error itself as ``cause``."""

    cause = MemoryError("no room for the model")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("bad"), 1, "ValueError: bad"),
        (FakeRemoteError("long"), 1, "MemoryError: no room for the model"),
        (ExceptionGroup("g", [ExceptionGroup("h", [KeyError("k")])]), 1, "KeyError: 'k'"),
        (ConfigError("steps: no"), 2, "steps: no"),
        (ExceptionGroup("g", [ConfigError("steps: no")]), 2, "steps: no"),
    ],
    ids=["error", "remote", "group", "config", "config-in-group"],
)
def test_a_failure_is_one_message_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, text: str
) -> None:
    failing_with(monkeypatch, error)
    assert fails(capsys, "train", "--config", "x", code=code) == text


def test_an_interrupt_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(monkeypatch, KeyboardInterrupt())
    assert cli.main(["train", "--config", "x"]) == 130


def test_a_failure_says_in_which_step_it_was_and_where_the_log_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = ValueError("bad")
    error.add_note("in step 3")
    error.add_note("log: runs/x/log.txt")
    failing_with(monkeypatch, error)
    assert fails(capsys, "train", "--config", "x", code=1) == "in step 3: ValueError: bad\nlog: runs/x/log.txt"


@pytest.mark.parametrize("arguments", [[], ["train"], ["fly"], ["train", "--config"]], ids=str)
def test_arguments_that_are_no_command_are_exit_code_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: renio" in capsys.readouterr().err


def python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_runs_as_a_module() -> None:
    text = python("-m", "renio_pipeline", "--help")
    assert text.startswith("usage: renio")
    assert all(command in text for command in COMMANDS)


def test_neither_importing_the_command_nor_a_refused_configuration_loads_an_engine() -> None:
    program = (
        "import json, sys\n"
        "from renio_pipeline import cli\n"
        "code = cli.main(['train', '--config', '/no/such.yaml'])\n"
        "print(json.dumps([code, [m for m in ('torch', 'transformers', 'vllm', 'ray', 'deepspeed') if m in sys.modules]]))"
    )
    assert json.loads(python("-c", program)) == [2, []]


def test_an_offline_check_needs_no_cluster_no_network_and_no_weights(
    capsys: pytest.CaptureFixture[str], no_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    preset = str(ROOT / "configs/paper/qwen3-1.7b-opd.yaml")
    assert cli.main(["check", "--offline", "--config", preset, "--config", str(ROOT / "configs/paper/two-nodes.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "configuration fine; it asks for generator 8 x 1 GPUs, teacher 4 x 1 GPUs, trainer 4 x 1 GPUs"
    assert lines[1:] == [
        f"not here, so not checked: {what}"
        for what in (
            "student: Qwen/Qwen3-1.7B",
            "teacher.model: Qwen/Qwen3-8B",
            "data.path: openthoughts-maths.jsonl",
            "prompt lengths, vocabulary and payload, which need all of them",
            "the cluster",
        )
    ]


def test_an_offline_check_of_what_is_here_is_a_whole_one(
    capsys: pytest.CaptureFixture[str], no_ray: None, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert cli.main(["check", "--offline", "--config", config]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["not here, so not checked: the cluster"]
    assert "max_response_tokens" in fails(capsys, "check", "--offline", "--config", config, "max_response_tokens=500")
    assert "generator.engine.zz" in fails(capsys, "check", "--offline", "--config", config, "generator.engine.zz=1")


def test_an_offline_check_says_what_it_leaves_out_of_the_data(
    capsys: pytest.CaptureFixture[str], no_ray: None, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    data = tmp_path / "rows.jsonl"
    data.write_text('{"problem": "1+1", "answer": "2"}\n{"problem": "2+2", "answer": "{"}\n')
    keys = ["task=maths", "task_options.instruction=''", f"data.path={data}", "evaluate.problems=0", "max_response_tokens=16"]
    assert cli.main(["check", "--offline", "--config", config, *keys]) == 0
    said = capsys.readouterr().out.splitlines()[1]
    assert said.startswith(f"1 of 2 problems left out: their answers cannot be used (data.path); first: {data}, line 2: ")
    assert "task_options.instruct: task maths has no such option; did you mean instruction?" in fails(
        capsys, "check", "--offline", "--config", config, *keys, "task_options.instruct=x"
    )


def test_an_offline_check_looks_at_what_is_here_although_something_is_not(
    capsys: pytest.CaptureFixture[str], no_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    data = tmp_path / "rows.jsonl"
    data.write_text('{"problem": "1+1", "solution": "2", "Answer": "2"}\n{"problem": "2+2"}\n')
    preset = ["check", "--offline", "--config", str(ROOT / "configs/paper/qwen3-1.7b-opsd.yaml")]
    assert "rows.jsonl, line 2 has no solution" in fails(capsys, *preset, f"data={{path: {data}}}")
    assert "task: 'nonsense' is not known" in fails(capsys, *preset, "task=nonsense")
    assert "matches no linear module" in fails(
        capsys,
        "check",
        "--offline",
        "--config",
        str(ROOT / "configs/paper/qwen3-1.7b-opd.yaml"),
        "student=embedded:student",
        "trainer.lora.targets=[nope]",
    )


def test_what_a_users_class_raises_in_an_actor_is_told_without_rays_words(capsys: pytest.CaptureFixture[str]) -> None:
    from ray.exceptions import RayTaskError

    told = OwnClassError("weighting.path: weigh of Mine in mine.py raised:\nTraceback ...\nKeyError: 1")
    remote = RayTaskError("weigh", "Traceback of Ray", told).as_instanceof_cause()
    assert cli._failed(remote, remote) == 2
    assert capsys.readouterr().err == f"error: {told}\n"


def test_a_reader_that_has_read_enough_ends_a_command_without_a_word() -> None:
    """As in ``renio config | head``."""
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run([sys.executable, "-m", "renio_pipeline", "config"], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (ran.returncode, ran.stderr) == (141, b"")
