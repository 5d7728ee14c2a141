"""Checkpoint and resume on real engines: what a killed, stopped or moved run does afterwards is what it would have done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline import ledger
from tests.ray import runs
from tests.ray.broken import Broken
from tests.ray.runs import STEPS, VARIES, finish, lines_of, metrics, responses, written

LAST = f"checkpoints/step_{STEPS:06d}"


# Of a line of metrics, what workers that are killed change.
OF_THE_KILLED = {"pool/generator/size", "pool/generator/restarts", "pool/trainer/restarts"}


@pytest.mark.timeout(1500)
def test_a_run_killed_stopped_and_colocated_ends_digit_for_digit_as_one_that_was_not(
    whole_run: Path, broken_run: Broken
) -> None:
    """The first two drivers have the generators apart; the last one has them colocated, and loses workers."""
    broken = broken_run.folder
    found, expected = metrics(broken), metrics(whole_run)
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for one, other in zip(found, expected, strict=True):
        changed = OF_THE_KILLED if one["step"] > broken_run.stopped_after else set()
        assert {name for name in {*one, *other} if one.get(name) != other.get(name)} <= changed, one["step"]
    assert written(broken) == written(whole_run)
    weights = f"{LAST}/hf/model.safetensors"
    assert (broken / weights).read_bytes() == (whole_run / weights).read_bytes()
    assert _result(broken) == _result(whole_run)
    assert [line["incarnation"] for line in lines_of(broken / "resumes.jsonl")] == [1, 2, 3]
    assert ledger.history(broken) == ledger.history(whole_run)
    names = {r["row"].partition("/")[0] for r in responses(broken) if r["source"] == r["row"].partition("/")[0]}
    assert names == {"sums", "words"}, "each of two sources, with a task of its own, was drawn from"
    assert all(line["source/sums/samples"] + line["source/words/samples"] == 16 for line in found)
    for folder in (whole_run, broken):
        ledger.prove_exactly_once(folder)
    assert (ledger.replayed(whole_run), ledger.replayed(broken) > 0) == (0, True)


@pytest.mark.timeout(1200)
def test_a_run_goes_on_with_fewer_ranks_generators_and_teachers_as_it_would_have(
    whole_run: Path, whole: list[str], tmp_path: Path
) -> None:
    moved, kept = tmp_path / "moved", 4
    shutil.copytree(whole_run, moved)
    for step in range(kept + 1, STEPS + 1):
        shutil.rmtree(moved / f"checkpoints/step_{step:06d}", ignore_errors=True)
    (moved / "result.json").unlink()
    finish(runs.train(moved, *whole, *(f"pools.{pool}.replicas=1" for pool in runs.POOLS), "--resume"))
    found, expected = metrics(moved), metrics(whole_run)
    assert found[:kept] == expected[:kept]
    assert [line["step"] for line in found] == list(range(1, STEPS + 1))
    assert {(r["generator"], r["teacher"]) for r in responses(moved) if r["version"].startswith("1.")} == {("0", "0")}
    for name in ("loss", "grad_norm", "weights/max", "eval/accuracy"):
        assert found[-1][name] == pytest.approx(expected[-1][name], rel=1e-3)
    assert found[-1]["lr"] == expected[-1]["lr"]
    ledger.prove_exactly_once(moved)
    assert [list(ranks) for ranks in ledger.history(moved).values()] == [[0, 1]] * kept + [[0]] * (STEPS - kept)
    assert [p.name for p in (moved / "checkpoints").glob(".*")] == [], "the scratch folder of the conversion was left"


def _result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found | {"first_step": {k: v for k, v in found["first_step"].items() if not k.startswith(VARIES)}}
