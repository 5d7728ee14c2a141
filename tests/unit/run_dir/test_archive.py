"""Past samples and full ledgers, packed and dropped: what is left is read as before, and still proves what it proved."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.config.schema import Samples
from renio_pipeline.ledger import LedgerError, history, prove_exactly_once, replayed
from renio_pipeline.report.recorded import read_runs
from renio_pipeline.report.samples import read_samples
from renio_pipeline.run_dir import ledger_files
from renio_pipeline.run_dir.archive import Archive, Tidied, tidy
from renio_pipeline.run_dir.batches import read_batches, step_files
from renio_pipeline.run_dir.checkpoint_files import RunState
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.run_dir.fence import Fence, LeaseLostError
from renio_pipeline.run_dir.json_lines import complete_lines, lines_of, pack, packed_path
from renio_pipeline.run_dir.ledger_files import record_trained
from renio_pipeline.types import Version
from tests.unit.conftest import make_config
from tests.unit.recorded_runs import record, sample

EACH = 4


def trained(folder: Path, steps: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's directory with two ranks' ledgers, which are full after every third line."""
    monkeypatch.setattr(ledger_files, "FULL_BYTES", 140)
    path = record(folder, {step: [sample(EACH * step + i) for i in range(EACH)] for step in range(1, steps + 1)})
    for step in range(1, steps + 1):
        for rank in (0, 1):
            ids = [EACH * step + 2 * rank, EACH * step + 2 * rank + 1]
            record_trained(path / "ledger", rank, step=step, incarnation=0, sample_ids=ids)
    return path


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_a_packed_run_says_and_proves_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained(tmp_path / "run", 10, monkeypatch)
    before = [list(complete_lines(file)) for file in step_files(path).values()]
    past, batches = history(path), read_batches(path)
    assert tidy(path, Samples(plain=3), 10, covered=9) == Tidied(packed=7, dropped=0)
    assert names(path / "samples") == [f"step_{i:06d}.jsonl" + ".zst" * (i <= 7) for i in range(1, 11)]
    assert all(name.endswith(".zst") for name in names(path / "ledger") if name.count(".") > 1)
    assert sum(name.endswith(".zst") for name in names(path / "ledger")) == 6
    assert [list(complete_lines(file)) for file in step_files(path).values()] == before
    assert history(path) == past
    assert replayed(path) == 0
    assert read_batches(path).keys() == batches.keys()
    prove_exactly_once(path)


def test_the_oldest_samples_are_dropped_and_the_proof_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained(tmp_path / "run", 10, monkeypatch)
    (run,) = read_runs([path])
    whole = read_samples(run, [], 10**6)
    assert tidy(path, Samples(plain=2, keep=4), 10, covered=10) == Tidied(packed=8, dropped=6)
    assert list(step_files(path)) == [7, 8, 9, 10]
    assert [packed_path(file).exists() for file in step_files(path).values()] == [True, True, False, False]
    prove_exactly_once(path)
    (run,) = read_runs([path])
    found = read_samples(run, [], 10**6)
    assert [entry["step"] for entry in found.reader["steps"]] == [7, 8, 9, 10]
    for then, now in zip(whole.weights, found.weights, strict=True):
        assert (then.step, then.sample_ids, then.verdict) == (now.step, now.sample_ids, now.verdict)
        for key in ("raw", "weight", "tokens"):
            np.testing.assert_array_equal(getattr(then, key), getattr(now, key))


@pytest.mark.parametrize("keep", [None, 3])
def test_a_sample_that_is_missing_is_still_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int | None) -> None:
    path = trained(tmp_path / "run", 8, monkeypatch)
    with (path / "batches.jsonl").open("a") as file:
        file.write(json.dumps(next(complete_lines(path / "batches.jsonl")) | {"step": 9, "sample_ids": [7, 8]}) + "\n")
    tidy(path, Samples(plain=1, keep=keep), 8, covered=8)
    with pytest.raises(LedgerError, match="step 9: its samples were written, but it is in no ledger"):
        prove_exactly_once(path)


def test_what_no_checkpoint_covers_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained(tmp_path / "run", 10, monkeypatch)
    assert tidy(path, Samples(plain=2, keep=4), 10, covered=0) == Tidied()
    assert names(path / "samples") == [f"step_{i:06d}.jsonl" for i in range(1, 11)]
    assert tidy(path, Samples(plain=2, keep=4), 10, covered=5, since=Tidied()) == Tidied(packed=5, dropped=5)


def test_a_resume_cuts_packed_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained(tmp_path / "run", 10, monkeypatch)
    tidy(path, Samples(plain=1), 10, covered=10)
    config = make_config(run_dir=str(path), steps=10, name="recorded", max_response_tokens=48)
    RunDirectory(config, RunState(step=6, version=Version(1, 6)))
    assert list(step_files(path)) == [1, 2, 3, 4, 5, 6]
    assert list(read_batches(path)) == [1, 2, 3, 4, 5, 6]
    assert list(history(path)) == [1, 2, 3, 4, 5, 6]
    assert replayed(path) == 4
    prove_exactly_once(path)
    for step in range(7, 11):  # trained again, by ranks whose ledger goes on
        ids = [EACH * step + i for i in range(EACH)]
        RunDirectory(config).write_samples(step, [sample(i) for i in ids])
        record_trained(path / "ledger", 0, step=step, incarnation=1, sample_ids=ids)
    tidy(path, Samples(plain=1), 10, covered=10)
    prove_exactly_once(path)
    assert len(history(path)) == 10


def test_a_run_of_an_earlier_version_has_its_batches_in_its_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained(tmp_path / "run", 3, monkeypatch)
    written = read_batches(path)
    (path / "batches.jsonl").unlink()
    for step, batch in read_batches(path).items():
        assert batch.sample_ids == written[step].sample_ids
        np.testing.assert_array_equal(batch.raw, written[step].raw)


def test_a_resume_of_such_a_run_may_drop_its_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained(tmp_path / "run", 5, monkeypatch)
    written = read_batches(path)
    (path / "batches.jsonl").unlink()
    config = make_config(run_dir=str(path), steps=10, name="recorded", max_response_tokens=48)
    RunDirectory(config, RunState(step=5, version=Version(1, 5)))
    assert tidy(path, Samples(plain=1, keep=2), 5, covered=5).dropped == 3
    prove_exactly_once(path)
    assert {step: b.sample_ids for step, b in read_batches(path).items()} == {s: b.sample_ids for s, b in written.items()}


def test_a_driver_without_its_lease_packs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained(tmp_path / "run", 4, monkeypatch)
    (path / "lease").write_text("another's")
    before = names(path / "samples"), names(path / "ledger")
    with pytest.raises(LeaseLostError):
        tidy(path, Samples(plain=1, keep=1), 4, covered=4, fence=Fence(str(path / "lease"), "mine"))
    assert (names(path / "samples"), names(path / "ledger")) == before


def test_a_disk_that_is_full_is_said_once_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, notes = trained(tmp_path / "run", 6, monkeypatch), list[str]()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    async def scene() -> None:
        archive = Archive(path, Samples(plain=1), note=notes.append)
        for step in (4, 5, 6):
            archive.tidy(step, covered=6)
            await archive.finish()
        monkeypatch.undo()
        archive.tidy(6, covered=6)
        await archive.finish()

    monkeypatch.setattr("renio_pipeline.run_dir.archive.pack", full)
    asyncio.run(scene())
    assert notes == ["past samples could not be packed: [Errno 28] No space left on device"]
    assert sum(name.endswith(".zst") for name in names(path / "samples")) == 5


def test_a_packed_file_that_is_damaged_is_an_error_and_no_shorter_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"step": i, "x": i**3}) + "\n" for i in range(5000)))
    pack(path)
    packed = packed_path(path)
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"a\.jsonl\.zst: what was packed is damaged"):
        list(complete_lines(path))


def test_a_line_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("renio_pipeline.run_dir.json_lines.LONGEST_LINE", 1000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"0" * 10**6)
    pack(path)
    assert packed_path(path).stat().st_size < 1000
    with pytest.raises(ValueError, match="a line is longer than"):
        list(lines_of(path))


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=5000))
def test_whatever_is_packed_is_read_as_it_was(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("packed") / "file"
    path.write_bytes(content)
    lines = list(lines_of(path))
    pack(path)
    assert not path.exists()
    assert list(lines_of(path)) == lines
    assert b"".join(lines) == content
