"""From models and data sets to what an evaluation leaves. The engine is faked: what is written comes from a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renio_pipeline import cli
from renio_pipeline.config import ConfigError
from renio_pipeline.evaluation.answers import answer_all
from renio_pipeline.evaluation.asking import Asked, alone, ask
from renio_pipeline.evaluation.markers import Markers
from renio_pipeline.evaluation.metrics import majority
from renio_pipeline.evaluation.models import Located
from renio_pipeline.evaluation.records import Problem
from renio_pipeline.evaluation.results import Results, read_results
from renio_pipeline.evaluation.sets import OWN, DataSet, data_sets
from renio_pipeline.tasks import make_task
from renio_pipeline.types import FIRST_VERSION, Prompt, Rollout, Row
from tests.unit.conftest import make_config

SMALL = {"max_response_tokens": 48, "evaluate": {"problems": 4}, "data": {"problems": 8}}
MARKERS = Markers(["wait"])


class ScriptedGenerators:
    """Writes ``response(place, prompt)`` for the prompt at each place, the last one first; None: it is set aside."""

    size = 1

    def __init__(self, tokenizer: object, response: Callable[[int, Prompt], str | None]) -> None:
        self._tokenizer, self._response = tokenizer, response
        self.temperatures: list[float] = []

    async def generate(self, prompts: Sequence[Prompt], temperature: float) -> AsyncIterator[Rollout]:
        self.temperatures.append(temperature)
        for place, prompt in reversed(list(enumerate(prompts))):
            text = self._response(place, prompt)
            if text is None:
                continue
            ids = np.asarray(self._tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)  # type: ignore[operator]
            yield Rollout(
                prompt=prompt,
                token_ids=ids,
                logprobs=np.zeros(len(ids), np.float32),
                version=FIRST_VERSION,
                stop_reason="stop" if "#" in text else "length",
            )


def right(place: int, prompt: Prompt) -> str:
    return f"#{prompt.row.answer}"


def sets(samples: int = 2, **keys: object) -> list[DataSet]:
    return data_sets(make_config(**{**SMALL, **keys}), [], [], samples=samples, limit=None)


def asked(of: Sequence[DataSet], **keys: object) -> Asked:
    return ask(alone(make_config(**{**SMALL, **keys})), "student", Located("embedded:student"), of)


def answers(
    of: Sequence[DataSet], response: Callable[[int, Prompt], str | None], **keys: object
) -> tuple[dict[str, list[Problem]], int]:
    """The problems of each data set in the order that they were finished, and how many responses were counted."""
    model, found, came = asked(of, **keys), {}, []
    generators = ScriptedGenerators(model.tokenizer, response)
    finished = lambda data, problems: found.update({data.name: problems})  # noqa: E731
    asyncio.run(answer_all(generators, model, MARKERS, finished, lambda: came.append(1)))  # type: ignore[arg-type]
    assert generators.temperatures == [model.config.evaluate.temperature]
    return found, len(came)


def test_each_problem_gets_its_own_samples_in_order_whatever_comes_first() -> None:
    of = sets()
    found, came = answers(of, lambda place, prompt: right(place, prompt) if place % 2 else f"#{place}")
    assert came == 8
    assert [p.id for p in found[OWN]] == [row.id for row in of[0].rows]
    assert [[s.answer for s in p.samples] for p in found[OWN]] == [[str(2 * i), p.gold] for i, p in enumerate(found[OWN])]
    assert all(p.samples[1].verdict == "correct" for p in found[OWN])


def test_a_response_that_was_cut_is_unfinished_and_keeps_its_text() -> None:
    found, _ = answers(sets(samples=1), lambda place, prompt: "1+1=2;")
    (sample,) = found[OWN][0].samples
    assert (sample.verdict, sample.stop_reason, sample.answer, sample.response) == ("unfinished", "length", None, "1+1=2;")


def test_data_sets_are_asked_together_and_finished_each_by_itself() -> None:
    first, second = sets()[0], sets(task_options={"seed": 9})[0]
    other = DataSet(name="other", source="x", task=second.task, rows=second.rows, samples=1)
    found, came = answers([first, other], right)
    assert list(found) == ["other", OWN]  # the fake writes the last prompt first
    assert came == 12
    assert [len(p.samples) for p in found["other"]] == [1] * 4
    assert [p.id for p in found["other"]] == [row.id for row in second.rows]


def test_a_problem_whose_sample_was_set_aside_is_left_out() -> None:
    found, _ = answers(sets(), lambda place, prompt: None if place == 3 else right(place, prompt))
    assert [p.id for p in found[OWN]] == [row.id for i, row in enumerate(sets()[0].rows) if i != 1]


def test_a_task_that_raises_ends_the_evaluation() -> None:
    of = sets()
    of[0].task.verify = lambda row, text: 1 / 0  # type: ignore[assignment,method-assign]
    with pytest.raises(ZeroDivisionError):
        answers(of, right)


class Characters:
    """A tokenizer whose tokens are characters."""

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) for c in text]}

    def decode(self, ids: np.ndarray, skip_special_tokens: bool) -> str:
        return "".join(map(chr, ids))


@pytest.mark.slow
def test_mathematics_is_graded_in_worker_processes_and_equal_answers_vote_together() -> None:
    task, row = make_task("maths"), Row(id="half", problem="1 / 2", answer="0.5")
    data = DataSet(name="maths", source="x", task=task, rows=[row], samples=5)
    prompts = [Prompt(sample_id=-1 - i, row=row, student_ids=np.zeros(1), teacher_ids=np.zeros(1)) for i in range(5)]
    model = Asked(
        name="m",
        model="m",
        adapter=None,
        config=make_config(**SMALL),
        tokenizer=Characters(),
        sets=(data,),
        prompts=(tuple(prompts),),
        vocab_size=9,
        context=9,
    )
    boxes, found = ["\\frac12", "0.5", "1/3", "0.25", "\\frac{1}{4} "], {}
    generators = ScriptedGenerators(model.tokenizer, lambda place, prompt: f"Wait, # \\boxed{{{boxes[place]}}}")
    finished = lambda data, problems: found.update({data.name: problems})  # noqa: E731
    asyncio.run(answer_all(generators, model, MARKERS, finished))  # type: ignore[arg-type]
    (problem,) = found["maths"]
    assert [s.correct for s in problem.samples] == [True, True, False, False, False]
    assert [s.answer for s in problem.samples] == ["1/2", "1/2", "1/3", "1/4", "1/4"]
    assert majority(problem) == 0.5  # one half and one fourth have two votes each
    assert [s.markers for s in problem.samples] == [{"wait": 1}] * 5


def test_a_sample_of_a_problem_has_the_same_id_for_every_model_and_no_other_has_it() -> None:
    of = [*sets(), DataSet(name="other", source="x", task=sets()[0].task, rows=sets()[0].rows, samples=3)]
    student = ask(alone(make_config(**SMALL)), "a", Located("embedded:student"), of)
    teacher = ask(alone(make_config(**SMALL)), "b", Located("embedded:teacher"), of)
    ids = [[p.sample_id for p in prompts] for prompts in student.prompts]
    assert ids == [[p.sample_id for p in prompts] for prompts in teacher.prompts]
    assert ids == [list(range(-1, -9, -1)), list(range(-9, -21, -1))]


def test_prompts_over_the_limit_are_left_out_counted_and_change_no_other_sample() -> None:
    texts = ["1+1", "1+" * 20 + "1", "2+2", "3+3"]
    rows = [Row(id=f"r{i}", problem=text, answer="2") for i, text in enumerate(texts)]
    data = DataSet(name="sums", source="x", task=make_task("plain"), rows=rows, samples=2, notes=("earlier",))
    every, some = asked([data]), asked([data], data={"max_prompt_tokens": 30})
    kept = [p.sample_id for p in some.prompts[0]]
    assert kept == [p.sample_id for p in every.prompts[0] if p.row.id != "r1"] == [-1, -2, -5, -6, -7, -8]
    assert some.context < every.context
    (note,) = some.notes
    assert note.startswith("student, sums: 1 of 4 problems left out: their prompts are longer than data.max_prompt_tokens (30)")
    assert "first: row 'r1': " in note
    assert some.sets[0].notes == ("earlier", note)
    assert (every.notes, every.sets[0].notes) == ((), ("earlier",))
    found, came = answers([data], lambda place, prompt: f"#{prompt.row.id}.{place}", data={"max_prompt_tokens": 30})
    assert came == 6
    said = {p.id: [s.answer for s in p.samples] for p in found["sums"]}
    assert said == {"r0": ["#r0.0", "#r0.1"], "r2": ["#r2.2", "#r2.3"], "r3": ["#r3.4", "#r3.5"]}
    with pytest.raises(ConfigError, match=r"data\.max_prompt_tokens: every prompt of sums is longer than 2 tokens"):
        asked([data], data={"max_prompt_tokens": 2})


def test_evaluation_needs_no_teacher_and_has_its_own_sampling() -> None:
    nowhere = {"teacher": {"model": "/nowhere"}, "sampling": {"top_p": 0.9, "top_k": 5}}
    config = asked(sets(), **nowhere).config
    assert (config.student, config.sampling.top_p, config.sampling.top_k, config.max_response_tokens) == (
        "embedded:student",
        0.9,
        5,
        48,
    )
    own = {"problems": 4, "top_p": 0.5, "top_k": 0, "max_response_tokens": 20}
    found = asked(sets(), **nowhere, evaluate=own)
    assert (found.config.sampling.top_p, found.config.sampling.top_k, found.config.max_response_tokens) == (0.5, 0, 20)
    assert found.context == max(len(p.student_ids) for prompts in found.prompts for p in prompts) + 21


def test_a_model_that_is_missing_or_too_small_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match="--model: model folder '/nowhere' does not exist"):
        ask(alone(make_config(**SMALL)), "x", Located("/nowhere"), sets())
    with pytest.raises(ConfigError, match=r"exceeds the context of embedded:student"):
        asked(sets(), evaluate={"problems": 4, "max_response_tokens": 5000})


def test_results_are_whole_after_each_data_set_and_read_back(tmp_path: Path) -> None:
    of = sets()
    results = Results(tmp_path / "out", make_config(), {"a": "x", "b": "y"}, of)
    for name, response in (("a", right), ("b", lambda place, prompt: "#0")):
        results.add(name, of[0], answers(of, response)[0][OWN])
        values = json.loads((tmp_path / "out/results.json").read_text())
        assert (tmp_path / f"out/{name}/{OWN}.jsonl").is_file()
        assert values["results"][name][OWN]["metrics"]["avg@2"] == {
            "value": float(name == "a"),
            "low": float(name == "a"),
            "high": float(name == "a"),
        }
    assert list(values["results"]["a"][OWN]["metrics"]) == [
        "avg@2",
        "pass@2",
        "majority@2",
        "response_tokens",
        "truncated",
        "markers_per_1k_tokens",
    ]
    assert values["data_sets"][OWN] == {
        "source": "task arithmetic",
        "task": "arithmetic",
        "problems": 4,
        "samples": 2,
        "notes": [],
    }
    assert read_results(str(tmp_path / "out/a")) == ("a", {OWN: results.problems["a"][OWN]})
    with pytest.raises(ConfigError, match=r"has the results of 2 models; give one of them: .*out/a, .*out/b"):
        read_results(str(tmp_path / "out/results.json"))


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"--out: .* is not empty"):
        Results(tmp_path, make_config(), {}, [])
    with pytest.raises(ConfigError, match=r"--out: .* cannot be created"):
        Results(tmp_path / "notes.txt", make_config(), {}, [])
    Results(tmp_path / "later/deep", make_config(), {}, [])
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_damaged_line_of_earlier_results_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(ConfigError, match="is not a folder written by renio eval"):
        read_results(str(folder))
    (folder / "set.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(ConfigError, match=r"set.jsonl, line 1: not written by renio eval"):
        read_results(str(folder))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"samples": []}, "it has no samples"),
        (
            {"samples": [{"answer": "1", "verdict": "right", "tokens": 1, "stop_reason": "stop", "response": "1"}]},
            "'right' is no",
        ),
    ],
)
def test_results_that_would_give_no_number_or_a_wrong_one_are_refused(
    changes: dict[str, Any], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"id": "a", "problem": "p", "gold": "1"}
    one = {"answer": "1", "verdict": "correct", "tokens": 1, "stop_reason": "stop", "response": "1"}
    for name, last in (("before", {"samples": [one]}), ("after", changes)):
        (tmp_path / name).mkdir()
        lines = [good | {"samples": [one]}, good | {"id": "b"} | last]
        (tmp_path / name / "set.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert cli.main(["eval", "--compare", str(tmp_path / "before"), str(tmp_path / "after")]) == 2
    written = capsys.readouterr()
    assert (written.out, written.err.count("\n")) == ("", 1)
    assert f"{tmp_path}/after/set.jsonl, line 2: not written by renio eval: {told}" in written.err
