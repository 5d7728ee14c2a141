"""Suites by name, copies of their layouts, data sets of one's own, models of runs, and the markers' file."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.config import ConfigError, load
from renio_pipeline.config.schema import Prompts
from renio_pipeline.evaluation.asking import alone
from renio_pipeline.evaluation.markers import OURS, Markers
from renio_pipeline.evaluation.models import Located, locate, named
from renio_pipeline.evaluation.sets import DataSet, data_sets
from renio_pipeline.evaluation.suites import PRESETS, suite, suites
from renio_pipeline.grading.screening import RowScreening
from renio_pipeline.run_dir.checkpoint_files import RunState, begin, commit
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.sandbox.deadline import Deadline
from renio_pipeline.tasks import make_task
from renio_pipeline.tasks.phrasing import Phrasing
from renio_pipeline.types import Row
from tests.unit.conftest import DEMO, make_config
from tests.unit.publish.test_push import write_adapter

MATHS = {"answer": "7", "solution": "…"}
# Records as the hub has them: of each suite its columns, two rows.
RECORDS: dict[str, list[dict[str, Any]]] = {
    "aime24": [{"id": 60 + i, "problem": f"p{i}", "url": "…", "year": "2024", **MATHS} for i in range(2)],
    "aime25": [{"id": str(i), "problem": f"p{i}", "answer": "7"} for i in range(2)],
    "hmmt25": [{"problem_idx": 1 + i, "problem": f"p{i}", "answer": "\\frac{1}{2}"} for i in range(2)],
    "math500": [{"unique_id": f"test/{i}.json", "problem": f"p{i}", "level": 2, **MATHS} for i in range(2)],
    "minerva": [{"question": f"p{i}", "answer": "7.0e8"} for i in range(2)],
    "amc23": [{"id": i, "question": f"p{i}", "answer": 27.0, "url": "…"} for i in range(2)],
    "amo-bench": [{"question_id": 1 + i, "prompt": f"p{i}", "answer": "\\boxed{7}", "answer_type": "number"} for i in range(2)],
    "humaneval+": [
        {
            "task_id": f"HumanEval/{i}", "prompt": f"def helper():\n    ...\n\ndef f{i}(x):\n    ...", "entry_point": f"f{i}",
            "canonical_solution": "…", "test": "def check(candidate):\n    assert candidate(1) == 2\n",
        }
        for i in range(2)
    ],
    "mbpp+": [
        {
            "task_id": 2 + i, "prompt": "Write a function.", "code": "…", "test_imports": [],
            "test_list": [f"assert f{i}(1) == 2", "assert False"], "test": f"assert f{i}(1) == 2\n",
        }
        for i in range(2)
    ],
}  # fmt: skip


DEMO_CONFIG = Path(__file__).parents[3] / "configs" / "demo.yaml"


def read(
    *from_suites: str, own: tuple[str, ...] = (), samples: int | None = None, limit: int | None = None, **keys: Any
) -> list[DataSet]:
    keys = {"evaluate": {"problems": 3}, "task_options": {"sandbox": "weak"} if keys.get("task") == "code" else {}} | keys
    return data_sets(make_config(**keys), from_suites, own, samples=samples, limit=limit)


def lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def program(function: str) -> str:
    return f"```python\ndef {function}\n```"


def test_every_suite_has_a_layout_here_and_a_task() -> None:
    assert RECORDS.keys() == suites().keys()
    assert {entry.task for entry in suites().values()} == {"maths", "code"}
    assert not any(entry.task == "code" and "tests" not in entry.fields for entry in suites().values())


@pytest.mark.parametrize("name", list(RECORDS))
def test_a_copy_of_a_suite_reads_as_its_layout_says(name: str, tmp_path: Path) -> None:
    rows = suite(name).rows(str(lines(tmp_path / "copy.jsonl", RECORDS[name])), "key")
    assert len({row.id for row in rows}) == 2
    assert all((row.tests if suite(name).task == "code" else row.answer) for row in rows)


def test_copies_as_a_folder_of_files_and_from_save_to_disk_read_alike(tmp_path: Path) -> None:
    import datasets

    table = datasets.Dataset.from_list(RECORDS["math500"])
    table.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"test": table}).save_to_disk(str(tmp_path / "splits"))
    (tmp_path / "hub/data").mkdir(parents=True)
    table.to_parquet(str(tmp_path / "hub/data/test-00000-of-00001.parquet"))
    found = [suite("math500").rows(str(tmp_path / kind), "key") for kind in ("saved", "splits", "hub")]
    assert [row.id for row in found[0]] == ["test/0.json", "test/1.json"]
    assert list(found[0]) == list(found[1]) == list(found[2])


def test_a_program_that_is_checked_by_name_carries_it(tmp_path: Path) -> None:
    (data,) = read(f"humaneval+={lines(tmp_path / 'x.jsonl', RECORDS['humaneval+'])}", task="code")
    assert [json.loads(str(row.tests))["fn_name"] for row in data.rows] == ["f0", "f1"]
    assert [data.task.verify(data.rows[0], program(f"{name}(x): return x + 1")) for name in ("f0", "f1")] == [
        "correct",
        "incorrect",
    ]


def test_of_mbpp_the_first_test_is_shown_and_no_other(tmp_path: Path) -> None:
    (data,) = read(f"mbpp+={lines(tmp_path / 'x.jsonl', RECORDS['mbpp+'])}", task="code")
    asked = data.task.messages(data.rows[1])[-1]["content"]
    assert "assert f1(1) == 2" in asked
    assert "assert False" not in asked
    assert data.task.verify(data.rows[1], program("f1(x): return 2")) == "correct"
    assert data.task.verify(data.rows[1], program("f1(x): return 3")) == "incorrect"


def test_an_unknown_suite_is_refused_with_the_list_before_any_is_read() -> None:
    with pytest.raises(ConfigError) as refusal:
        read("aime24=/nowhere", "aime26")
    assert "--suite: 'aime26' is not known; did you mean aime2" in str(refusal.value)
    assert all(name in str(refusal.value) for name in suites())


def test_suites_and_samples_are_keys_too_and_options_come_before_them(tmp_path: Path) -> None:
    copies = [f"{name}={lines(tmp_path / f'{i}.jsonl', RECORDS[name])}" for i, name in enumerate(("math500", "amc23"))]
    keys = {"evaluate": {"suites": copies, "samples": 3}}
    assert [(data.name, data.samples) for data in read(**keys)] == [("math500", 3), ("amc23", 3)]
    assert [(data.name, data.samples) for data in read(copies[1], samples=2, **keys)] == [("amc23", 2)]
    with pytest.raises(ConfigError, match=r"^evaluate.suites: 'amc24' is not known; did you mean amc23"):
        read(evaluate={"suites": ["amc24"]})


def test_the_papers_preset_sets_the_references_evaluation_whatever_the_run_is_trained_with() -> None:
    """From the preset's own file, over a configuration that trains on plain prompts without thinking."""
    trained = ["data.student_prompt=plain", "evaluate.prompt=plain", "sampling.top_p=0.9", "sampling.top_k=20"]
    config = alone(load([str(DEMO_CONFIG), str(PRESETS / "paper.yaml")], ["sampling.top_p=0.9", "sampling.top_k=20"]))
    assert (config.sampling.top_p, config.sampling.top_k, config.evaluate.temperature) == (1.0, 0, 1.0)
    assert (config.max_response_tokens, config.evaluate.samples, config.evaluate.prompt) == (38912, 6, "chat")
    assert config.template.evaluation == {"enable_thinking": True}
    assert config.template.student == {}
    assert set(config.evaluate.suites) <= {name for name, entry in suites().items() if entry.task == "maths"}
    asked = Phrasing(make_task("maths"), Prompts(student="Problem: {problem}", evaluation=config.prompts.evaluation))
    row = Row(id="a", problem="1 + 1?", answer="2")
    text = asked.messages(row, "evaluation")[-1]["content"]
    assert text.startswith("1 + 1?\n\n")
    assert "boxed" in text
    assert asked.messages(row, "student")[-1]["content"] == "Problem: 1 + 1?"
    # key=value comes after it
    assert load([str(DEMO_CONFIG), str(PRESETS / "paper.yaml")], [*trained, "evaluate.samples=1"]).evaluate.prompt == "plain"


def test_an_evaluation_has_a_seed_of_its_own_where_it_is_given() -> None:
    assert [alone(make_config(seed=5, evaluate=keys)).seed for keys in ({}, {"seed": 0}, {"seed": 7})] == [5, 0, 7]


def test_a_copy_that_is_not_there_is_never_looked_for_on_the_hub() -> None:
    with pytest.raises(ConfigError, match="/nowhere/copy does not exist; expected a folder or a file with a copy of Hugging"):
        read("aime24=/nowhere/copy")


def test_problems_that_cannot_be_graded_are_left_out_and_said(tmp_path: Path) -> None:
    records = [*RECORDS["minerva"], {"question": "no gold", "answer": None}]
    (data,) = read(f"minerva={lines(tmp_path / 'x.jsonl', records)}")
    assert (data.name, len(data.rows), data.samples) == ("minerva", 2, suite("minerva").samples)
    assert data.notes[0].startswith("minerva: 1 of 3 problems left out")
    assert "line 3" in data.notes[0]


@pytest.mark.slow
def test_a_problem_whose_verifier_hangs_is_left_out_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = partial(RowScreening, deadline=Deadline(cpu_seconds=1, idle_seconds=1))
    monkeypatch.setattr("renio_pipeline.evaluation.sets.RowScreening", quick)
    (tmp_path / "own.py").write_text(
        "import time\nclass Own:\n    def messages(self, row): return []\n"
        "    def verify(self, row, text): return time.sleep(15 * (row.answer == 'late')) or 'incorrect'\n"
    )
    path = lines(tmp_path / "mine.jsonl", [{"problem": answer, "answer": answer} for answer in ("1", "late", "2")])
    (data,) = read(own=(f"mine={path}",), task=f"{tmp_path / 'own.py'}:Own")
    assert [row.answer for row in data.rows] == ["1", "2"]
    assert data.notes[0].startswith(
        f"mine: 1 of 3 problems left out: they cannot be graded; first: {path}, line 2: answer 'late'"
    )


def test_a_data_set_of_none_but_such_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "mine.jsonl", [{"problem": "1 + 1"}])
    with pytest.raises(ConfigError, match=r"--data mine: none of the 1 problems can be graded; first: .*line 1: no answer"):
        read(own=(str(path),), task="plain")


def test_data_of_ones_own_has_the_configurations_task_and_fields(tmp_path: Path) -> None:
    path = lines(tmp_path / "mine.jsonl", [{"q": f"{i} + 1", "problem": "not this", "answer": i + 1} for i in range(5)])
    (data,) = read(own=(f"sums={path}",), task="plain", data={"fields": {"problem": "q"}}, samples=3, limit=4)
    assert (data.name, data.samples, data.task.name) == ("sums", 3, "plain")
    assert [(row.problem, row.answer) for row in data.rows] == [(f"{i} + 1", str(i + 1)) for i in range(4)]


def test_without_any_the_held_out_problems_are_asked(tmp_path: Path) -> None:
    (made,) = read()
    assert (made.name, len(made.rows), made.samples) == ("held-out", 3, 1)
    path = lines(tmp_path / "x.jsonl", [{"problem": f"{i}", "answer": "1"} for i in range(5)])
    (own,) = read(task="plain", data={"path": "unused", "held_out_path": str(path)})
    assert [row.problem for row in own.rows] == ["0", "1", "2"]
    with pytest.raises(ConfigError, match=r"evaluate.problems: 0 leaves nothing"):
        read(evaluate={"problems": 0})


def test_names_are_told_or_taken_from_the_path_and_never_double() -> None:
    options = ["a=x", "embedded:teacher", "Qwen/Qwen3-1.7B", "runs/r/checkpoints/step_000100/hf", "d/mine.jsonl"]
    assert list(named(options, "--model")) == ["a", "teacher", "Qwen3-1.7B", "step_000100", "mine"]
    assert list(named(options, "--model").values()) == ["x", *options[1:]]
    with pytest.raises(ConfigError, match="--model: two are named 'hf-x'"):
        named(["hf-x=a", "hf-x=b"], "--model")
    for bad in ("../x=a", "=a", "a=", "a/b=c", ""):
        with pytest.raises(ConfigError, match="is not NAME=VALUE"):
            named([bad], "--model")


def test_a_run_means_its_newest_checkpoint_and_a_checkpoint_its_model(tmp_path: Path) -> None:
    checkpoints = tmp_path / "run/checkpoints"
    for step in (5, 10):
        partial = begin(checkpoints, RunState(step=step))
        (partial / "hf").mkdir()
        (partial / "hf/config.json").write_text("{}")
        commit(partial, RunState(step=step))
    (checkpoints / "step_000015/hf").mkdir(parents=True)  # never finished
    assert locate(str(tmp_path / "run")) == Located(str(checkpoints / "step_000010/hf"))
    assert locate(str(checkpoints / "step_000005")) == Located(str(checkpoints / "step_000005/hf"))
    for model in ("embedded:student", "Qwen/Qwen3-1.7B", str(DEMO / "student"), str(tmp_path / "missing")):
        assert locate(model) == Located(model)


def test_an_adapter_is_evaluated_on_its_runs_student_and_elsewhere_on_the_model_that_it_names(tmp_path: Path) -> None:
    partial = begin(tmp_path / "run/checkpoints", RunState(step=1))
    (partial / "adapter").mkdir()
    write_adapter(partial / "adapter")  # it names a folder that is not there
    folder = commit(partial, RunState(step=1))
    RunDirectory(make_config(run_dir=str(tmp_path / "run"), student="Qwen/Qwen3-1.7B"))
    adapter = str(folder / "adapter")
    for model in (tmp_path / "run", folder, adapter):
        assert locate(str(model)) == Located("Qwen/Qwen3-1.7B", adapter)
    assert str(locate(adapter)) == f"Qwen/Qwen3-1.7B + {adapter}"
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(adapter, elsewhere)
    with pytest.raises(ConfigError, match=r"for the model '/home/me/secret/place', which is not there; write where it is now"):
        locate(str(elsewhere))
    file = elsewhere / "adapter_config.json"
    file.write_text(file.read_text().replace("/home/me/secret/place", "Qwen/Qwen3-4B"))
    assert locate(str(elsewhere)) == Located("Qwen/Qwen3-4B", str(elsewhere))
    file.write_text(file.read_text().replace('"base_model_name_or_path"', '"other"'))
    with pytest.raises(ConfigError, match=r"does not say which model it is for; write that to base_model_name_or_path"):
        locate(str(elsewhere))
    file.write_text("{}")
    with pytest.raises(ConfigError, match=r"only LoRA can be served"):
        locate(str(elsewhere))
    (tmp_path / "empty/checkpoints").mkdir(parents=True)
    with pytest.raises(ConfigError, match="is a run without a complete checkpoint"):
        locate(str(tmp_path / "empty"))


def test_markers_are_whole_words_in_any_case_and_the_longest_at_a_place() -> None:
    markers = Markers(["wait", "let me", "let me check", "i'm not sure"])
    text = "Wait, WAIT. Awaiting waiters; let me   check this. Let me see. I’m not sure\nI'm  not\tsure"
    assert markers.count(text) == {"wait": 2, "let me check": 1, "let me": 1, "i'm not sure": 2}
    assert markers.count("") == {}


def test_the_packages_markers_have_the_papers_examples() -> None:
    markers = Markers.read(None)
    assert {"wait", "maybe", "let me check"} <= set(markers.phrases)
    assert len(set(markers.phrases)) == len(markers.phrases)
    assert all(markers.count(phrase) == {phrase: 1} for phrase in markers.phrases)


def test_a_file_of_ones_own_takes_the_place_of_the_packages(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("# ours\n\nVielleicht  # maybe\nvielleicht\n")
    assert Markers.read(str(path)).phrases == ["vielleicht"]
    path.write_text("# nothing\n")
    with pytest.raises(ConfigError, match=r"evaluate.markers: .*mine.txt has no phrase"):
        Markers.read(str(path))
    with pytest.raises(ConfigError, match="does not exist"):
        Markers.read(str(tmp_path / "missing.txt"))
    assert OURS.is_file()
