"""``renio probe`` on real engines: a student, its teacher, and the trainer's forward pass, in the place of the generators."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from renio_pipeline.probe.numbers import OF_ERROR
from renio_pipeline.probe.results import newest, read_report
from tests.ray.runs import SMALL, finish, lines_of, start


def test_the_demos_teacher_answers_from_before_the_pivotal_token_and_not_from_after_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = [f"run_dir={run}", "data.problems=64", "evaluate.problems=0", *SMALL]
    sizes = ["--responses", "64", "--prefixes", "6", "--continuations", "2"]
    shown = finish(start("probe", "--config", "configs/demo.yaml", *sizes, *small))
    path = newest(run)
    assert path is not None
    assert f"results: {path.parent}" in shown
    report = read_report(path)
    found = report.entries[0].findings
    assert (found.responses, found.right + found.wrong) == (64, 64)
    assert found.student_accuracy is not None
    assert found.teacher_accuracy is not None
    assert found.recovery is not None
    assert found.recovery.before is not None
    assert found.recovery.after is not None
    assert found.mismatch is not None
    assert found.loss_after is not None
    assert found.student_accuracy.high < found.teacher_accuracy.low
    assert found.recovery.after.high < found.recovery.before.low
    assert found.mismatch.largest < 1e-3
    assert 0.5 < found.loss_after.value < 1
    assert found.auroc["weight"].low > 0.9
    texts = lines_of(path.parent / "continuations.jsonl")
    assert len(texts) == 2 * sum(group.prefixes for group in found.groups if not group.group.startswith(OF_ERROR))
    wrong = [t["continuations"] for t in texts if t["group"] != "right" and t["from"] == "after"]
    after = [each["verdict"] == "correct" for continuations in wrong for each in continuations]
    assert found.recovery.after.value == pytest.approx(sum(after) / len(after))
    assert all(text in shown for text in ("The teacher goes on", "AUROC", "advice", "weighting.type="))
    assert json.loads(path.read_text())["config"]["run_dir"] == str(run)
