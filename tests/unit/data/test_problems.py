"""What is left out of a run's data, what is said of it, and what stops the run."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.data.problems import Problems, problems_of
from renio_pipeline.data.prompts import Cursor, Encoded
from renio_pipeline.grading.questions import MOST_CHARACTERS
from renio_pipeline.grading.screening import RowScreening
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.sandbox.deadline import Deadline
from renio_pipeline.tasks import make_task
from renio_pipeline.types import Row
from tests.unit.conftest import make_config
from tests.unit.grading.test_grader import workers
from tests.unit.sandbox.test_sandbox import gone

STUBBORN = """
import os, subprocess, time
class Stubborn:
    def messages(self, row): return [{"role": "user", "content": row.problem}]
    def verify(self, row, text):
        if row.answer == "late": time.sleep(60)
        return None if row.answer is None else "incorrect"
    def fault(self, row):
        if row.answer.startswith("runs"): subprocess.run(["sleep", row.answer[4:]])
        if row.answer == "long": return "x" * 100_000
        if row.answer == "hangs": pow(9, 9 ** 9 ** 9)  # in C, where no signal handler of Python's would ever run
        if row.answer == "exits": os._exit(0)
        if row.answer == "raises": raise KeyError("oh")
        return "is bad" if row.answer == "bad" else None
"""


def write(path: Path, *records: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def config_of(task: str, path: str, held_out: str | None = None, **changes: Any) -> RunConfig:
    data = {"path": path, "held_out_path": held_out, **changes.pop("data", {})}
    return make_config(task=task, data=data, evaluate={"problems": 4 if held_out else 0}, **changes)


def found(config: RunConfig) -> tuple[Problems, Problems]:
    return problems_of(config, make_task(config.task, config.task_options))


QUICK = Deadline(cpu_seconds=0.5, idle_seconds=1)


def faults(task: str, rows: list[Row], deadline: Deadline = QUICK) -> list[str | None]:
    with RowScreening(make_task(task), deadline) as screening:
        return list(screening.faults(rows))


def ids(problems: Problems) -> list[str]:
    return [row.id for row in problems.rows]


@pytest.fixture
def stubborn(tmp_path: Path) -> str:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    return f"{tmp_path / 'stubborn.py'}:Stubborn"


def test_gold_answers_that_cannot_be_parsed_are_left_out_counted_and_shown(tmp_path: Path) -> None:
    answers = ["4", r"\frac{", "x^2", "{", "", "7", r"\sqrt{"]
    path = write(tmp_path / "rows.jsonl", *({"problem": f"p{i}", "answer": a} for i, a in enumerate(answers)))
    training, _ = found(config_of("maths", path))
    assert ids(training) == ["1", "3", "6"]
    (note,) = training.notes
    assert note.startswith(
        f"4 of 7 problems left out: their answers cannot be used (data.path); first: {path}, line 2: answer '\\\\frac{{' "
        f"cannot be parsed by math-verify; {path}, line 4: "
    )
    assert note.count("cannot be parsed") == 3, "more than three are not shown"


def test_a_run_of_nothing_but_bad_gold_answers_stops(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"problem": "a", "answer": "{"}, {"problem": "b", "answer": r"\frac{"})
    with pytest.raises(
        ConfigError, match=r"data\.path: none of the 2 problems can be graded by task maths .*line 1: answer '{'"
    ):
        found(config_of("maths", path))


def test_held_out_rows_are_skipped_and_counted_too(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"problem": "a", "answer": "4"})
    held = write(tmp_path / "held.jsonl", *({"problem": f"h{i}", "answer": a} for i, a in enumerate(["{", *"123456"])))
    _, held_out = found(config_of("maths", path, held))
    assert ids(held_out) == ["2", "3", "4", "5"]
    assert held_out.notes[0].startswith("1 of 5 problems left out: their answers cannot be used (data.held_out_path)")


@pytest.mark.slow
def test_a_row_that_hangs_or_ends_the_grader_is_a_fault_and_the_others_are_none(stubborn: str) -> None:
    answers = ["1", "hangs", "2", "bad", "exits", "3", "exits", "hangs"]
    rows = [Row(id=a, problem="p", answer=a) for a in answers]
    said = faults(stubborn, rows)
    lost = "answer {!r} gets no answer of task Stubborn in two tries: its worker {}"
    spun, ended = "used more than 0.5 s of CPU time", "ended"
    assert said == [
        None,
        lost.format("hangs", spun),
        None,
        "is bad",
        lost.format("exits", ended),
        None,
        lost.format("exits", ended),
        lost.format("hangs", spun),
    ]


def test_no_process_is_left_also_where_the_rest_is_not_asked_for(stubborn: str) -> None:
    with RowScreening(make_task(stubborn)) as screening:
        assert next(screening.faults([Row(id=str(i), problem="p", answer="1") for i in range(1000)])) is None
        bad = [Row(id="r", problem="p", answer="bad")]
        assert list(screening.faults(bad)) == ["is bad"], (
            "answers that nobody asks for are not taken for those to the next rows"
        )
        assert workers()
    assert not workers()


def test_many_rows_keep_their_order_over_several_processes(stubborn: str) -> None:
    rows = [Row(id=str(i), problem="p", answer="bad" if i % 7 == 3 else "1") for i in range(700)]
    said = faults(stubborn, rows)
    assert said == ["is bad" if i % 7 == 3 else None for i in range(700)]


def test_rows_and_faults_that_are_longer_than_a_pipe_holds_stop_nobody(stubborn: str) -> None:
    rows = [Row(id=str(i), problem="p" * 50_000, answer="long") for i in range(300)]
    said: list[str | None] = []
    asking = threading.Thread(target=lambda: said.extend(faults(stubborn, rows)), daemon=True)
    asking.start()
    asking.join(60)
    assert said == ["x" * MOST_CHARACTERS] * 300


def test_a_row_that_a_task_trips_over_is_a_fault_that_says_how(capfd: pytest.CaptureFixture[str]) -> None:
    said = faults("maths", [Row(id="r", problem="p", answer=5), Row(id="s", problem="p", answer="5")])  # type: ignore[arg-type]
    assert said == ["task maths cannot look at it: TypeError: expected string or bytes-like object, got 'int'", None]
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_what_a_row_started_ends_with_its_process(stubborn: str) -> None:
    nap = f"61.{os.getpid()}"
    (said,) = faults(stubborn, [Row(id="r", problem="p", answer=f"runs{nap}")])
    assert str(said).endswith("its worker was idle for more than 1 s")
    assert gone(nap, 5)


def test_a_worker_whose_owner_hangs_up_ends_without_a_word(stubborn: str, capfd: pytest.CaptureFixture[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "renio_pipeline.grading.worker_main"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    slow = ("fault", Row(id="r", problem="p", answer="runs0.2"), "")
    message = pickle.dumps([("make", stubborn, {}), *[slow] * 3])
    process.stdin.write(len(message).to_bytes(8, "big") + message)
    process.stdin.flush()
    assert json.loads(process.stdout.readline()) == {"value": None}
    process.stdin.close()
    process.stdout.close()
    assert process.wait(20) == 0
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_verifier_that_hangs_is_found_before_anything_starts(
    stubborn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("renio_pipeline.data.problems.RowScreening", partial(RowScreening, deadline=QUICK))
    good = write(tmp_path / "good.jsonl", {"problem": "a", "answer": "1"})
    late = write(tmp_path / "late.jsonl", {"problem": "b", "answer": "late"})
    for paths in ((late, None), (good, late)):
        with pytest.raises(ConfigError, match=r"^task: verify, of an empty response to row '1': answer 'late' gets no answer"):
            found(config_of(stubborn, *paths))
    both = write(tmp_path / "both.jsonl", {"problem": "a", "answer": "1"}, {"problem": "b", "answer": "late"})
    with pytest.raises(ConfigError, match=r"^task: verify, of an empty response to row '2'"):
        found(config_of(stubborn, both, filter="incorrect"))


def test_a_fault_that_raises_shows_its_traceback_from_the_other_process(stubborn: str) -> None:
    rows = [Row(id="r", problem="p", answer="raises")]
    with pytest.raises(ConfigError, match=r"fault raised for row 'r'(.|\n)*KeyError: 'oh'"):
        faults(stubborn, rows)


def test_training_problems_that_are_held_out_too_are_counted_and_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"problem": "What is\n 1+1?"}, {"problem": "new"}, {"problem": "what is 1+1? "})
    held = write(tmp_path / "held.jsonl", {"problem": "What is 1+1?", "answer": "2"}, {"problem": "other", "answer": "3"})
    training, _ = found(config_of("plain", path, held))
    assert ids(training) == ["1", "2", "3"]
    (note,) = training.notes
    assert note.startswith("warning: 2 of 3 training problems are also held out")
    assert note.endswith(f"first: {path}, line 1; {path}, line 3")


def test_rows_without_a_mapped_field_are_counted_with_the_line_of_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"problem": "a", "final": 1}, {"problem": "b"}, {"problem": "c", "final": None})
    training, _ = found(config_of("plain", path, data={"fields": {"answer": "final"}}))
    assert [row.answer for row in training.rows] == ["1", None, None]
    assert training.notes == (f"data.fields.answer: 2 of 3 lines of {path} have no 'final'; first: line 2",)


def test_a_users_verifier_is_tried_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(STUBBORN + "\n    def verify(self, row, text): return text.splitlines()[-1]\n")
    path = write(tmp_path / "rows.jsonl", {"problem": "a", "answer": "1"})
    with pytest.raises(ConfigError, match=r"verify raised for row '1', line 1 of its file(.|\n)*IndexError"):
        found(config_of(f"{tmp_path / 'mine.py'}:Stubborn", path))


def test_a_users_task_that_makes_no_problems_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(STUBBORN + "\n    def rows(self, split, count): return []\n")
    with pytest.raises(ConfigError, match=r"^task: .*mine\.py:Stubborn generated no problems to train on"):
        found(make_config(task=f"{tmp_path / 'mine.py'}:Stubborn", evaluate={"problems": 0}))


def test_nothing_is_said_where_nothing_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"problem": "a", "answer": "1"})
    held = write(tmp_path / "held.jsonl", {"problem": "b", "answer": "2"})
    assert [p.notes for p in found(config_of("maths", path, held))] == [(), ()]


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> str:
    """1200 problems, over several batches: every fifth one is long, every third has a long solution."""
    path = tmp_path_factory.mktemp("uneven") / "rows.jsonl"
    return write(
        path,
        *(
            {"problem": "1" * (40 if i % 5 == 0 else 5 + i % 3), "answer": "1", "solution": "2" * (90 if i % 3 == 0 else 4)}
            for i in range(1200)
        ),
    )


def prepared(path: str, limit: int | None, *, task: str = "plain", **changes: Any) -> Prepared:
    return prepare(config_of(task, path, data={"max_prompt_tokens": limit}, max_response_tokens=16, **changes))


def test_prompts_that_are_too_long_are_left_out_and_counted(uneven: str) -> None:
    run = prepared(uneven, 20)
    assert [int(row.id) - 1 for row in run.rows] == [i for i in range(1200) if i % 5]
    assert max(map(len, run.prompt_ids)) <= 20
    assert run.context == max(map(len, run.prompt_ids)) + 16 + 1
    (note,) = run.notes
    assert note.startswith(
        f"240 of 1200 problems left out: their prompts are longer than data.max_prompt_tokens (20); first: {uneven}, line 1: "
    )
    everything = prepared(uneven, None)
    assert (len(everything.rows), everything.notes) == (1200, ())


def test_the_teachers_prompt_counts_as_well(uneven: str) -> None:
    limit = 60
    run = prepared(uneven, limit, task="arithmetic", method={"type": "opd", "privileged": True})
    assert [int(row.id) - 1 for row in run.rows] == [i for i in range(1200) if i % 3]
    assert max(map(len, run.teacher_ids)) <= limit
    longest = max(max(map(len, run.teacher_ids)), max(map(len, run.prompt_ids)))
    assert run.context == longest + 16 + 1


def test_a_limit_that_leaves_nothing_stops_the_run(uneven: str) -> None:
    with pytest.raises(
        ConfigError, match=r"data\.max_prompt_tokens: every prompt is longer than 3 tokens; first: .*line 1: \d+"
    ):
        prepared(uneven, 3)


def test_without_a_limit_a_prompt_that_does_not_fit_is_an_error(uneven: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"problem": "1" * 5000})
    with pytest.raises(
        ConfigError, match=r"max_response_tokens: the prompt of row '1' has 50\d\d tokens.*data\.max_prompt_tokens"
    ):
        prepared(path, None)


def test_lazy_prompts_are_those_that_were_checked_together(uneven: str) -> None:
    run = prepared(uneven, 20)
    assert isinstance(run.prompt_ids, Encoded)
    together = [ids for batch in run.prompt_ids.batches(100) for _, ids in batch]
    assert [run.prompt_ids[i].tolist() for i in (0, 99, 100, 959)] == [together[i].tolist() for i in (0, 99, 100, 959)]
    assert [a.tolist() for a in run.prompt_ids[-3:]] == [a.tolist() for a in together[-3:]]
    with pytest.raises(IndexError):
        run.prompt_ids[960]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("few") / "rows.jsonl", *({"problem": f"p{i}" + "x" * i} for i in range(40)))


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=8), st.integers(1, 3), st.integers(0, 99))
@pytest.mark.slow
def test_a_run_that_is_killed_anywhere_goes_on_with_the_very_samples_it_would_have_drawn(
    few: str, draws: list[int], repeat: int, seed: int
) -> None:
    """Each draw is a process that dies after it, and the next one reads its data anew; nothing but the position survives."""
    config = config_of("plain", few, seed=seed, samples_per_prompt=repeat, batch_size=repeat)
    held = found(config)[0].rows
    lengths = [np.array([len(row.problem)], np.int32) for row in held]
    straight = Cursor(lengths, held, config).take(sum(draws))
    position, drawn = 0, []
    for count in draws:
        again = found(config)[0].rows
        cursor = Cursor(lengths, again, config, position)
        drawn += cursor.take(count)
        position = cursor.position
    assert [(p.sample_id, p.row, p.student_ids.tolist()) for p in drawn] == [
        (p.sample_id, p.row, p.student_ids.tolist()) for p in straight
    ]


def test_the_order_of_a_seed_is_what_it_always_was() -> None:
    """Checkpoints of earlier versions hold positions in this order."""
    rows = [Row(id=str(i), problem="p") for i in range(7)]
    prompts = Cursor([np.zeros(1, np.int32)] * 7, rows, make_config(seed=5)).take(14)
    expected = [*np.random.default_rng([5, 0]).permutation(7), *np.random.default_rng([5, 1]).permutation(7)]
    assert [int(p.row.id) for p in prompts] == expected
