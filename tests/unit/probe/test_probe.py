"""A probe with the embedded models, in this process: real sampling, scoring, forward passes and continuations."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.data.prompts import Cursor
from renio_pipeline.grading.grader import Grader
from renio_pipeline.in_process import in_process_stages
from renio_pipeline.in_process.trainers import InProcessTrainers
from renio_pipeline.models import info
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.probe.responses import Response
from renio_pipeline.probe.results import ALL, Findings, newest, read_report, write_report
from renio_pipeline.probe.run import Examined, Size, examine, respond, score
from renio_pipeline.probe.selection import WRONG
from renio_pipeline.probe.setting import probing
from renio_pipeline.probe.table import advice_text, sections, tables
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.weightings import ScoredBatch
from renio_pipeline.weightings.diagnostics import pivotal_tokens
from tests.unit.conftest import make_config
from tests.unit.probe import made_up

pytestmark = pytest.mark.slow

FLOAT32 = {"generator": {"dtype": "float32"}, "trainer": {"dtype": "float32"}, "batch_size": 32, "max_response_tokens": 48}
TEACHER = {"model": "embedded:teacher", "dtype": "float32"}
SIZE = Size(responses=64, prefixes=10, continuations=2)
Probe = tuple[list[Response], Examined, RunConfig, Prepared]


def probed(size: Size = SIZE, **changes: Any) -> Probe:
    config = make_config(**{"data": {"problems": 128}, "evaluate": {"problems": 4}, "teacher": TEACHER} | FLOAT32 | changes)
    prepared = prepare(config)
    stages = in_process_stages(config, prepared)
    trainers = stages.trainers
    assert isinstance(trainers, InProcessTrainers)
    prompts = Cursor(prepared.prompt_ids, prepared.rows, config, teacher_ids=prepared.teacher_ids).take(size.responses)

    async def go() -> tuple[list[Response], Examined]:
        async with Grader(prepared.task, prepared.tokenizer) as grader:
            judged = await respond(stages.generators, prompts, grader.judge, config)
            budget = PayloadBudget(config.payload.max_bytes, config.batch_size, 0)
            responses = await score(stages.teachers, budget, judged, config, trainers.forward, task=prepared.task)
            context = min(prepared.context + config.max_response_tokens, info.inspect(config.student, "student").context)
            return responses, await examine(stages.teachers, grader.judge, responses, config, context=context, size=size)

    return *asyncio.run(go()), config, prepared


@pytest.fixture(scope="module")
def clean() -> Probe:
    return probed()


def only(found: Examined) -> Findings:
    (entry,) = found.entries
    return entry.findings


def test_a_clean_teacher_answers_from_before_the_pivotal_token_and_not_from_after_it(clean: Probe) -> None:
    found = only(clean[1])
    assert found.student_accuracy is not None
    assert found.teacher_accuracy is not None
    assert found.recovery is not None
    assert found.recovery.before is not None
    assert found.recovery.after is not None
    assert found.student_accuracy.value < 0.6 < 0.95 < found.teacher_accuracy.value
    assert found.recovery.before.value > 0.9
    assert found.recovery.after.value < 0.1
    assert [(g.group, g.prefixes) for g in found.groups][:2] == [("heaviest wrong", 10), ("other wrong", 10)]
    assert found.recovery.prefixes == 20
    assert found.auroc["weight"].low > 0.9


def test_every_number_follows_from_the_responses_and_the_texts(clean: Probe) -> None:
    responses, examined, _, _ = clean
    found = only(examined)
    assert found.right + found.wrong == len(responses) == 64
    assert found.student_accuracy is not None
    assert found.student_accuracy.value == pytest.approx(np.mean([r.verdict == "correct" for r in responses]))
    shares: dict[tuple[str, str], list[bool]] = {}
    for record in examined.records:
        right = [c["verdict"] == "correct" for c in record["continuations"]]
        shares.setdefault((record["group"], record["from"]), []).extend(right)
        if record["group"] in WRONG and record["error"]:
            shares.setdefault((f"wrong: {record['error']}", record["from"]), []).extend(right)
    assert {"wrong: slipped", "wrong: guessed"} <= {group.group for group in found.groups}, "the task tells them apart"
    for group in found.groups:
        for point, estimate in (("before", group.before), ("after", group.after)):
            assert estimate is not None
            assert estimate.value == pytest.approx(np.mean(shares[group.group, point]))
            assert estimate.low <= estimate.value <= estimate.high
    assert found.loss_after is not None
    losses = [np.abs(r.forward.losses) / len(r.token_ids) for r in responses if r.forward]
    after = sum(each[r.after].sum() for each, r in zip(losses, responses, strict=True))
    assert found.loss_after.value == pytest.approx(after / sum(each.sum() for each in losses), rel=1e-5)
    assert found.mismatch is not None
    assert found.mismatch.largest < 1e-3  # one module writes and trains


def test_continuations_begin_with_the_response_up_to_the_pivotal_token(clean: Probe) -> None:
    responses, examined, _, prepared = clean
    by_id = {r.prompt.sample_id: r for r in responses}
    for record in examined.records:
        own = by_id[record["sample_id"]]
        assert own.first == record["first_pivotal"]
        length = own.first + (record["from"] == "after")
        start = prepared.tokenizer.decode(own.token_ids[:length], skip_special_tokens=True)
        assert all(each["text"].startswith(start) for each in record["continuations"])


def test_pivotal_tokens_and_weights_are_those_of_training(clean: Probe) -> None:
    responses, _, config, _ = clean
    batch = ScoredBatch(
        sample_ids=[r.prompt.sample_id for r in responses],
        row_ids=[r.prompt.row.id for r in responses],
        token_ids=[r.token_ids for r in responses],
        student_logprobs=[r.student for r in responses],
        teacher_logprobs=[r.teacher for r in responses],
        verdicts=[r.verdict for r in responses],
    )
    found = pivotal_tokens(batch, config.pivotal)
    assert [np.flatnonzero(r.marked).tolist() for r in responses] == [places.tolist() for places in found.positions]
    assert [r.raw for r in responses] == pytest.approx(found.raw.tolist(), rel=1e-5)
    share = only(clean[1]).pivotal_share
    assert share is not None
    assert share.value == pytest.approx(found.metrics["pivotal/fraction"])


def test_opsd_probes_the_student_that_sees_the_solution() -> None:
    found = only(probed(method={"type": "opsd", "teacher": "fixed"}, teacher={"dtype": "float32"})[1])
    assert found.teacher == "embedded:student"
    assert found.teacher_accuracy is not None
    assert found.recovery is not None


def test_several_teachers_have_an_entry_each_and_one_together(tmp_path: Path) -> None:
    from renio_pipeline.tasks.arithmetic import Arithmetic

    rows = Arithmetic(seed=1).rows("train", 48)
    data = tmp_path / "sums.csv"
    lines = [f"{r.id},{r.problem},{r.answer},{('left', 'right')[i % 2]}" for i, r in enumerate(rows)]
    data.write_text("\n".join(["id,problem,answer,teacher", *lines]) + "\n")
    teachers = {"left": TEACHER, "right": TEACHER | {"model": "embedded:student"}}
    given = {"teachers": teachers, "teacher": {}, "data": {"path": str(data)}, "evaluate": {"problems": 0}}
    found = probed(Size(responses=48, prefixes=10, continuations=2), **given)[1]
    left, right, together = (entry.findings for entry in found.entries)
    assert [f.teacher for f in (left, right, together)] == ["left", "right", ALL]
    assert left.responses == right.responses == 24
    assert together.wrong == left.wrong + right.wrong
    assert left.teacher_accuracy is not None
    assert right.teacher_accuracy is not None
    assert left.teacher_accuracy.value > right.teacher_accuracy.value


def test_a_task_without_verdicts_has_neither_accuracy_nor_recovery_and_says_so(tmp_path: Path) -> None:
    data = tmp_path / "plain.jsonl"
    data.write_text("".join(f'{{"problem": "{i}+{i + 1}+{i}+7"}}\n' for i in range(20, 40)))
    _, examined, _, _ = probed(
        Size(responses=20, prefixes=4, continuations=2), task="plain", data={"path": str(data)}, evaluate={"problems": 0}
    )
    found = only(examined)
    assert (found.student_accuracy, found.teacher_accuracy, found.recovery, found.groups, found.auroc) == (
        None,
        None,
        None,
        [],
        {},
    )
    assert found.pivotal_share is not None
    assert found.loss_after is not None
    assert examined.entries[0].advice.weighting is None
    assert "no verdicts" in examined.entries[0].advice.reason


def test_a_report_is_read_as_it_was_written_and_shown_whole(clean: Probe, tmp_path: Path) -> None:
    report = replace(made_up.report(), entries=clean[1].entries)
    for name in ("20260101-000000", "20260102-000000"):
        write_report(report, tmp_path / "probes" / name)
    path = newest(tmp_path)
    assert path == tmp_path / "probes/20260102-000000/probe.json"
    assert read_report(path) == report
    console = Console(width=200, record=True, file=StringIO())
    for table in tables(report):
        console.print(table)
    shown = console.export_text()
    assert all(title in shown for title in sections(report))
    assert "uniform weights, strength λ 0, after_pivotal γ" in advice_text(report)
    path.write_text(path.read_text()[:-100])
    with pytest.raises(ConfigError, match=r"probe.json is not written by renio probe, or damaged"):
        read_report(path)


def test_a_run_without_a_teacher_is_not_probed() -> None:
    config = make_config(method={"type": "grpo"}, teacher={}, batch_size=8, samples_per_prompt=4)
    with pytest.raises(ConfigError, match=r"^method\.type: grpo learns from no teacher, so there is none to probe; set method"):
        probing(config)
