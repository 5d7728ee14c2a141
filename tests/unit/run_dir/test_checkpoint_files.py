"""Checkpoints on the disk, what resume cuts back, and which configurations may go on with a run: without engines."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import signal
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.cli import main
from renio_pipeline.config import ConfigError, load
from renio_pipeline.loop.shutdown import Stop
from renio_pipeline.run_dir.batches import read_batches
from renio_pipeline.run_dir.checkpoint_files import ResumePoint, RunState, begin, commit, newest, prune, read
from renio_pipeline.run_dir.checkpointing import Checkpointer, CheckpointError
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.run_dir.recorded_config import recorded_config
from renio_pipeline.run_dir.resume import check_same_run, resume_point
from renio_pipeline.types import Evaluation, Version
from tests.unit.conftest import make_config

EVALUATION = Evaluation(problems=4, accuracy=0.5, low=0.1, high=0.9, response_tokens=7.0)


def state_of(step: int, **changes: Any) -> RunState:
    return replace(RunState(step=step, samples_drawn=7 * step, version=Version(0, step), world_size=1), **changes)


def write(folder: Path, step: int) -> Path:
    partial = begin(folder, state_of(step))
    (partial / "deep").mkdir()
    (partial / "deep/weights").write_text("w" * step)
    return commit(partial, state_of(step))


def tear(path: Path, how: str) -> None:
    """What kills, full disks and people leave behind, none of it a complete checkpoint."""
    if how == "no run.json":
        (path / "run.json").unlink()
    elif how == "half of run.json":
        text = (path / "run.json").read_text()
        (path / "run.json").write_text(text[: len(text) // 2])
    elif how == "another run.json":
        (path / "run.json").write_text("[1, 2]")
    elif how == "a file is gone":
        (path / "deep/weights").unlink()
    elif how == "a file is short":
        (path / "deep/weights").write_text("")
    elif how == "another step's":
        values = json.loads((path / "run.json").read_text())
        (path / "run.json").write_text(json.dumps(values | {"step": values["step"] + 1}))
    elif how == "a file":
        shutil.rmtree(path)
        path.write_text("not a folder")
    elif how == "partial":
        path.rename(path.with_name(f".{path.name}.0.partial"))
    elif how == "foreign":
        path.rename(path.with_name(f"{path.name}-best"))


TEARS = (
    "no run.json",
    "half of run.json",
    "another run.json",
    "a file is gone",
    "a file is short",
    "another step's",
    "a file",
    "partial",
    "foreign",
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.integers(1, 10**7), st.sampled_from(["whole", *TEARS]), max_size=6))
@pytest.mark.slow
def test_the_newest_complete_one_is_found_whatever_else_lies_around(found: dict[int, str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for step, how in found.items():
            tear(write(folder, step), how)
        (folder / "latest").write_text("step_000000")  # says nothing: it moves last
        whole = [step for step, how in found.items() if how == "whole"]
        expected = (folder / f"step_{max(whole):06d}", state_of(max(whole))) if whole else None
        assert newest(folder) == expected


def test_there_is_none_where_there_is_no_folder(tmp_path: Path) -> None:
    assert newest(tmp_path / "checkpoints") is None


def test_a_checkpoint_counts_only_when_it_is_committed_and_replaces_a_broken_one(tmp_path: Path) -> None:
    (begin(tmp_path, state_of(3)) / "half").touch()
    assert newest(tmp_path) is None
    (tmp_path / "step_000003").mkdir()
    partial = begin(tmp_path, state_of(3))
    assert list(partial.iterdir()) == []
    assert commit(partial, state_of(3)) == tmp_path / "step_000003"
    assert [p.name for p in tmp_path.iterdir()] == ["step_000003"]
    assert read(tmp_path / "step_000003") == state_of(3)


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_newest_ones_are_kept_and_latest_names_the_newest(tmp_path: Path, keep: int) -> None:
    for step in (2, 10, 4, 6):
        write(tmp_path, step)
    (tmp_path / "step_000009").mkdir()  # torn: neither counted nor deleted
    (tmp_path / "mine").mkdir()
    prune(tmp_path, keep)
    kept = {f"step_{step:06d}" for step in [2, 4, 6, 10][-keep:]}
    assert {p.name for p in tmp_path.iterdir()} == kept | {"step_000009", "mine", "latest"}
    assert (tmp_path / "latest").read_text() == "step_000010\n"


@dataclass
class FakeTrainers:
    """Writes a file when ``release`` is set, or fails."""

    failure: str | None = None
    release: asyncio.Event = field(default_factory=asyncio.Event)
    folder: str = ""
    saves: int = 0

    async def save(self, folder: str) -> None:
        self.folder, self.saves = folder, self.saves + 1

    async def written(self) -> None:
        await self.release.wait()
        Path(self.folder, "weights").write_text("w")
        if self.failure:
            raise CheckpointError(self.failure)


def test_saving_waits_for_the_copy_and_the_next_one_for_the_files(tmp_path: Path) -> None:
    async def go() -> None:
        notes: list[str] = []
        trainers = FakeTrainers()
        checkpointer = Checkpointer(tmp_path, trainers, keep=3, note=notes.append)
        await checkpointer.save(state_of(1))
        assert newest(tmp_path) is None, "the step waited for the disk"
        second = asyncio.create_task(checkpointer.save(state_of(2)))
        await asyncio.sleep(0.02)
        assert trainers.saves == 1, "two checkpoints were written at once"
        trainers.release.set()
        await second
        await checkpointer.finish()
        assert newest(tmp_path) == (tmp_path / "step_000002", state_of(2))
        assert notes == [f"checkpoint {tmp_path}/step_000001", f"checkpoint {tmp_path}/step_000002"]

    asyncio.run(go())


def test_a_checkpoint_that_fails_says_so_and_leaves_the_one_before(tmp_path: Path) -> None:
    async def go() -> None:
        notes: list[str] = []
        trainers = FakeTrainers()
        trainers.release.set()
        checkpointer = Checkpointer(tmp_path, trainers, keep=1, note=notes.append)
        await checkpointer.save(state_of(1))
        await checkpointer.finish()
        trainers.failure = "trainer rank 0: OSError: [Errno 28] No space left on device"
        await checkpointer.save(state_of(2))
        await checkpointer.finish()
        assert notes[1:] == [f"checkpoint at step 2 failed: {trainers.failure}"]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step_000001"]

    asyncio.run(go())


def test_a_checkpoint_that_is_asked_for_right_after_it_was_due_is_the_one_that_there_is(tmp_path: Path) -> None:
    """In a pause at a step at which one was due: whoever asks gets it, and nothing is written twice or fails."""

    async def go() -> None:
        notes: list[str] = []
        trainers = FakeTrainers()
        trainers.release.set()
        checkpointer = Checkpointer(tmp_path, trainers, keep=2, note=notes.append)
        await checkpointer.save(state_of(1))
        asked = checkpointer.ask()
        await checkpointer.save(state_of(1))
        assert await asked == (1, tmp_path / "step_000001")
        assert (trainers.saves, notes) == (1, [f"checkpoint {tmp_path}/step_000001"])
        await checkpointer.save(state_of(2))
        await checkpointer.finish()
        assert trainers.saves == 2

    asyncio.run(go())


def a_run(path: Path, steps: int = 6, **changes: Any) -> RunDirectory:
    """A run's directory after ``steps`` steps, with a checkpoint at every second one."""
    directory = RunDirectory(make_config(run_dir=str(path), steps=10, **changes))
    with directory.metrics.open("w") as metrics, (path / "ledger/rank_0.jsonl").open("w") as ledger:
        for step in range(1, steps + 1):
            metrics.write(json.dumps({"step": step, "loss": step / 7}) + "\n")
            ledger.write(json.dumps({"step": step, "incarnation": 0, "sample_ids": [step]}) + "\n")
            record = {"sample_id": step, "raw_weight": 0.1 * step, "weight": 1.0, "verdict": "correct", "token_ids": []}
            directory.write_samples(step, [record])
            directory.write_evaluation(step, EVALUATION)
            if step % 2 == 0:
                write(directory.checkpoints, step)
    return directory


def test_samples_are_read_as_they_were_written_whatever_their_numbers(tmp_path: Path) -> None:
    """A teacher may give a token no probability, and a response may say anything."""
    plain = {
        "sample_id": 1,
        "response": 'é\u2028"\\\n',
        "token_ids": [1, 2],
        "teacher_logprobs": [-0.1, 1e-45],
        "weight": 1 / 3,
        "raw_weight": 1.0,
        "verdict": "correct",
    }
    records = [plain, plain | {"teacher_logprobs": [-0.1, -math.inf]}, plain | {"raw_weight": math.inf, "verdict": None}]
    directory = RunDirectory(make_config(run_dir=str(tmp_path)))
    directory.write_samples(1, records)
    lines = (tmp_path / "samples/step_000001.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line) for line in lines[:-1]] == records
    assert lines[-1] == b""


def resumed(path: Path) -> tuple[ResumePoint, RunDirectory]:
    config = make_config(run_dir=str(path), steps=10)
    point = resume_point(config)
    return point, RunDirectory(config, point.state)


def steps_in(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_resume_cuts_back_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    a_run(tmp_path, steps=7)
    tear(tmp_path / "checkpoints/step_000006", "a file is short")
    begin(tmp_path / "checkpoints", state_of(7))
    with (tmp_path / "metrics.jsonl").open("a") as metrics, (tmp_path / "ledger/rank_0.jsonl").open("a") as ledger:
        metrics.write('{"step": 8, "lo')
        ledger.write('{"step": 8, "inc')
    (tmp_path / "result.json").write_text("{}")
    point, directory = resumed(tmp_path)
    assert point.folder == tmp_path / "checkpoints/step_000004"
    assert point.state == state_of(4, version=Version(1, 4))
    assert steps_in(tmp_path / "metrics.jsonl") == steps_in(tmp_path / "evaluations.jsonl") == [1, 2, 3, 4]
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [f"step_00000{i}.jsonl" for i in range(1, 5)]
    assert steps_in(tmp_path / "ledger/rank_0.jsonl") == [1, 2, 3, 4, 5, 6, 7]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step_000002", "step_000004"]
    assert not (tmp_path / "result.json").exists()
    past = directory.past()
    assert past.evaluations == dict.fromkeys([1, 2, 3, 4], EVALUATION)
    batches = read_batches(tmp_path).values()
    assert [float(w) for batch in batches for w in batch.raw] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert [batch.verdict for batch in batches] == [["correct"]] * 4
    assert past.first == {"loss": 1 / 7}


def test_without_a_complete_checkpoint_the_run_starts_anew_as_another_incarnation(tmp_path: Path) -> None:
    a_run(tmp_path, steps=1)
    point, directory = resumed(tmp_path)
    assert point == ResumePoint(state=RunState(version=Version(1, 0)), folder=None)
    assert steps_in(tmp_path / "metrics.jsonl") == [] == list((tmp_path / "samples").iterdir())
    assert steps_in(tmp_path / "ledger/rank_0.jsonl") == [1]
    assert directory.past().evaluations == {}


def test_an_incarnation_that_left_no_checkpoint_is_not_used_again(tmp_path: Path) -> None:
    a_run(tmp_path)
    assert [resumed(tmp_path)[0].state.version for _ in range(3)] == [Version(1, 6), Version(2, 6), Version(3, 6)]


@pytest.mark.parametrize("made", [False, True])
def test_a_run_that_has_not_begun_starts(tmp_path: Path, made: bool) -> None:
    path = tmp_path / "run"
    if made:
        path.mkdir()
        (path / ".config.yaml.aside").touch()
    assert resume_point(make_config(run_dir=str(path))) == ResumePoint()


def test_what_is_no_run_and_a_run_that_is_done_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"run_dir: .* is not a run's directory \(it has no config.yaml\)"):
        resume_point(make_config(run_dir=str(tmp_path)))
    a_run(tmp_path / "run").write_result({})
    with pytest.raises(ConfigError, match=r"steps: 6 is no more than the 6 that the run in .* has done; raise steps"):
        resume_point(make_config(run_dir=str(tmp_path / "run"), steps=6))
    (tmp_path / "run/result.json").unlink()  # killed before the result: it can still be made
    assert resume_point(make_config(run_dir=str(tmp_path / "run"), steps=6)).state.step == 6


@pytest.mark.parametrize(("mean", "state"), [(2.5, {"running_mean": 2.5}), (None, None)])
def test_a_checkpoint_of_an_earlier_version_gives_the_weighting_its_state(tmp_path: Path, mean: Any, state: Any) -> None:
    path = write(tmp_path, 3)
    values = json.loads((path / "run.json").read_text())
    del values["weighting"]
    (path / "run.json").write_text(json.dumps(values | {"running_mean": mean}))
    assert read(path) == state_of(3, weighting=state)


def test_a_run_of_an_earlier_version_with_uniform_weights_resumes_and_is_read(tmp_path: Path) -> None:
    """Its resolved configuration has the diagnostics' threshold and clip among the weighting's keys, which users must move."""
    now = make_config(
        run_dir=str(tmp_path / "run"), weighting={"type": "uniform"}, diagnostics={"threshold": 0.01, "clip": 2.0}
    )
    RunDirectory(now)
    file = tmp_path / "run/config.yaml"
    values = yaml.safe_load(file.read_text())
    shown = values.pop("diagnostics")
    values["weighting"] |= {key: shown[key] for key in ("threshold", "clip")}
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="uniform has no threshold and clip"):
        load(file)
    assert recorded_config(tmp_path / "run") == now
    assert resume_point(now).state == replace(RunState(), version=Version(1, 0))


FREE = [
    {"diagnostics": {"threshold": 1.0}},
    {"steps": 20}, {"checkpoint": {"every": 3, "keep": 9}}, {"evaluate": {"problems": 9}}, {"metrics_port": 9999},
    {"pools": {"trainer": {"replicas": 2}, "generator": {"env": {"A": "1"}}}}, {"payload": {"max_bytes": 2**33}},
    {"generator": {"engine": {"max_num_seqs": 3}}}, 
    {"sync": {"backend": "nccl"}, "pools": {"generator": {"gpus": 1}, "trainer": {"gpus": 1}}},
    {"trainer": {"micro_batch_tokens": 99}}, {"sinks": ["wandb"], "wandb": {"mode": "offline"}, "trace": {"steps": 3}},
    {"placement": "colocated", "trainer": {"offload": "optimizer"}},
    {"teacher": {"model": "embedded:teacher", "engine": {"a": 1}, "max_batch_tokens": 5}},
]  # fmt: skip
REFUSED = {
    "seed": {"seed": 1}, "batch_size": {"batch_size": 8}, "temperature": {"temperature": 2.0}, "student": {"student": "other"},
    "teacher.model": {"teacher": {"model": "other"}},
    "teacher.dtype": {"teacher": {"model": "embedded:teacher", "dtype": "float32"}},
    "generator.dtype": {"generator": {"dtype": "float32"}}, "data.problems": {"data": {"problems": 7}},
    "objective.k": {"objective": {"type": "top_k_forward_kl", "k": 3}},
    "weighting.clip": {"weighting": {"type": "renio", "clip": 3}},
    "method.privileged": {"method": {"type": "opd", "privileged": True}}, "trainer.lr": {"trainer": {"lr": 1.0}},
    "trainer.schedule": {"trainer": {"schedule": "cosine"}}, "trainer.zero_stage": {"trainer": {"zero_stage": 3}},
    "trainer.lora.r": {"trainer": {"lora": {"r": 4}}}, "trainer.dtype": {"trainer": {"dtype": "float32"}},
    "sampling.top_p": {"sampling": {"top_p": 0.5}}, "filter": {"filter": "correct"},
}  # fmt: skip


@pytest.mark.parametrize("changes", FREE, ids=str)
def test_how_far_and_on_what_a_run_goes_may_change(changes: dict[str, Any]) -> None:
    check_same_run(make_config(), make_config(**changes))


@pytest.mark.parametrize("key", REFUSED)
def test_a_change_of_the_mathematics_is_refused_by_its_key_with_both_values(key: str) -> None:
    was, now = make_config(), make_config(**REFUSED[key])
    with pytest.raises(ConfigError) as caught:
        check_same_run(was, now)
    values: list[Any] = []
    for config in (was, now):
        value: Any = config.model_dump(mode="json")
        for part in key.split("."):
            value = value.get(part) if value else None
        values.append(value)
    assert f"  {key}: the run has {values[0]!r}, given is {values[1]!r}" in str(caught.value)


def test_the_command_line_refuses_to_go_on_with_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_run(tmp_path)
    given = ["train", "--config", str(tmp_path / "config.yaml"), "seed=5"]
    assert main([*given, "--resume"]) == 2
    assert "  seed: the run has 0, given is 5\n" in capsys.readouterr().err
    assert main(given) == 2
    assert "is another run's directory (it is not empty)" in capsys.readouterr().err


def test_several_teachers_are_told_apart() -> None:
    def config(**changes: Any) -> Any:
        teachers = {"maths": {"model": "a"}, "code": {"model": "b"} | changes}
        return make_config(teacher={}, teachers=teachers, data={"path": "rows.jsonl", "fields": {"teacher": "d"}})

    check_same_run(config(), config(max_batch_tokens=3, engine={"x": 1}))
    with pytest.raises(ConfigError, match=r"teachers.code.dtype: the run has 'bfloat16', given is 'float32'"):
        check_same_run(config(), config(dtype="float32"))


def test_the_first_sigterm_asks_and_the_second_ends_at_once() -> None:
    before, notes = signal.getsignal(signal.SIGTERM), []
    stop = Stop()
    try:
        stop.arm(60, notes.append)
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
        assert len(notes) == 1
        with pytest.raises(SystemExit) as caught:
            signal.raise_signal(signal.SIGTERM)
        assert caught.value.code == 143
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0), "the grace would break into the unwinding"
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("restarting", [True, False])
def test_a_sigterm_promises_a_checkpoint_only_where_one_will_be_written(restarting: bool) -> None:
    before, notes, stop = signal.getsignal(signal.SIGTERM), list[str](), Stop()

    async def ends_soon() -> None: ...

    async def run() -> None:
        stop.arm(60, notes.append)
        if restarting:
            asyncio.get_running_loop().call_later(0.05, signal.raise_signal, signal.SIGTERM)
            await stop.unless_requested(asyncio.sleep(30))
        await stop.unless_requested(ends_soon())
        signal.raise_signal(signal.SIGTERM)
        stop.disarm()

    try:
        with pytest.raises(SystemExit) if restarting else nullcontext():
            asyncio.run(run())
    finally:
        signal.signal(signal.SIGTERM, before)
    after = "at once, at the checkpoint from which the ranks start again"
    later = "with a checkpoint after this step; at once in 60 s or at a second SIGTERM"
    assert notes == [f"SIGTERM: stopping {after if restarting else later}"]


def test_the_end_of_the_grace_ends_at_once() -> None:
    import time

    before = signal.getsignal(signal.SIGTERM)
    try:
        Stop().arm(0.05, lambda text: None)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit) as caught:
            time.sleep(10)
        assert caught.value.code == 143
    finally:
        signal.signal(signal.SIGTERM, before)
