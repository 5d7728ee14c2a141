"""What the page and the plots of a report hold. ``tests/ray/test_report.py`` opens the page."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.metrics.sink import JsonlSink
from renio_pipeline.probe.results import write_report as write_probe
from renio_pipeline.probe.table import sections
from renio_pipeline.report import write_report
from renio_pipeline.report.samples import VERDICTS
from tests.unit.probe import made_up
from tests.unit.recorded_runs import encode, line, record, sample

HOSTILE = "</script><script>window.pwned = 1</script><!-- <img src=x onerror='window.pwned = 1'> \u2028 & \""


def data_of(page: Path) -> dict[str, Any]:
    """What the page's scripts read."""
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 1
    assert "<" not in found[0]
    return json.loads(found[0])


def unpacked(text: str, dtype: str) -> list[float]:
    return np.frombuffer(base64.b64decode(text), dtype).tolist()


def test_the_page_holds_the_runs_numbers(tmp_path: Path) -> None:
    folder = record(tmp_path / "run")
    assert write_report([folder]) == [folder / "report.html"]
    (run,) = data_of(folder / "report.html")["runs"]
    assert run["steps"] == [1, 2, 3]
    assert run["metrics"]["loss"] == [1.0, 0.5, 0.333333]
    assert run["metrics"]["response/tokens"] == [13.0, 14.0, 15.0]
    assert [(e["step"], e["accuracy"], e["low"]) for e in run["evaluations"]] == [(0, 0.25, 0.175), (3, 0.5, 0.404)]
    assert run["timeline"][0]["score"] == [[2.0, 7.0]]
    assert (run["threshold"], run["clip"]) == (0.8, 2.5)
    facts = dict(run["facts"])
    assert facts["Held-out accuracy"] == "25.0% after step 0, 50.0% after step 3"
    assert facts["Steps"] == "3 of 3, ended"
    assert facts["AUROC of the weights"] == "1.000"
    weights = run["weights"]
    assert weights["counts"] == [4, 4, 4]
    expected = [sample(4 * step + i)["weight"] for step in (1, 2, 3) for i in range(4)]
    assert unpacked(weights["weight"], "<f4") == pytest.approx(expected)
    assert [VERDICTS[code] for code in unpacked(weights["verdict"], "u1")] == ["incorrect", "correct", "unfinished", None] * 3


@pytest.mark.parametrize("recorded", [True, False])
def test_whose_log_ratios_a_recorded_runs_are_is_said(tmp_path: Path, recorded: bool) -> None:
    teacher = {"teacher": {"type": "recorded", "path": "scores"}, "objective": {"type": "top_k_forward_kl", "k": 4}}
    write_report([record(tmp_path / "run", student_logprobs="trainer", **teacher if recorded else {})])
    (run,) = data_of(tmp_path / "run/report.html")["runs"]
    told = "of the student that wrote them" if recorded else "use the generator's log-probabilities"
    assert [told in note for note in run["notes"]] == [True]


def test_the_page_holds_the_newest_probe_of_a_run_and_none_where_there_is_none(tmp_path: Path) -> None:
    folder = record(tmp_path / "run")
    write_report([folder])
    assert data_of(folder / "report.html")["runs"][0]["probe"] is None
    found = made_up.report(teacher=HOSTILE)
    write_probe(made_up.report(), folder / "probes/20260101-000000")
    write_probe(found, folder / "probes/20260102-000000")
    write_report([folder])
    probe = data_of(folder / "report.html")["runs"][0]["probe"]
    assert probe["tables"] == sections(found)
    assert probe["tables"]["The teacher goes on: correct answers, in %"][1][:4] == [
        HOSTILE, "wrong, together", "64 x 4", "98.0 [95.0, 100.0]",
    ]  # fmt: skip
    assert "weighting.type=uniform weighting.after_pivotal=0" in probe["advice"]
    (folder / "probes/20260102-000000/probe.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"20260102-000000/probe.json is not written by renio probe, or damaged"):
        write_report([folder])


def test_the_reader_holds_each_token_with_its_numbers_heaviest_sample_first(tmp_path: Path) -> None:
    folder = record(tmp_path / "run")
    write_report([folder])
    reader = data_of(folder / "report.html")["runs"][0]["reader"]
    entry = reader["steps"][1]
    written = sorted((sample(8 + i) for i in range(4)), key=lambda s: -s["weight"])
    assert entry["step"] == 2
    assert entry["sample"] == [s["sample_id"] for s in written] == [11, 10, 8, 9]
    assert [reader["problems"][i] for i in entry["problem"]] == [s["problem"] for s in written]
    assert entry["pivotal"] == [[1], [1], [1], []]
    ids, texts, special = (reader["pieces"][key] for key in ("ids", "texts", "special"))
    tokens = unpacked(entry["tokens"], "<u4")
    length = len(encode("37+48=85;#85")) + 1
    first, last = tokens[:length], tokens[-1]
    assert [ids[t] for t in first] == written[0]["token_ids"]
    assert "".join(texts[t] for t in first if not special[t]) == "37+48=85;#85"
    assert special[last] == 1
    for key, name in (("student", "student_logprobs"), ("teacher_logprob", "teacher_logprobs")):
        assert unpacked(entry[key], "<f4") == pytest.approx([x for s in written for x in s[name]])


def test_token_factors_are_the_readers_where_a_step_has_them(tmp_path: Path) -> None:
    dimmed = [sample(i) for i in range(3)]
    for s in dimmed:
        s["token_factors"] = [1.0, 1.0] + [0.25] * (len(s["token_ids"]) - 2)
    folder = record(tmp_path / "run", {1: [sample(7)], 2: dimmed}, weighting={"type": "uniform", "after_pivotal": 0.25})
    write_report([folder])
    (run,) = data_of(folder / "report.html")["runs"]
    plain, entry = run["reader"]["steps"]
    assert plain["factor"] is None
    written = sorted(dimmed, key=lambda s: -s["weight"])
    assert unpacked(entry["factor"], "<f4") == [f for s in written for f in s["token_factors"]]
    assert dict(run["facts"])["Weighting"] == "uniform, threshold 0.8, clip 2.5, after_pivotal 0.25"


def test_a_token_that_the_teacher_gives_no_probability_at_all_stays_infinite(tmp_path: Path) -> None:
    impossible = sample(0)
    impossible["teacher_logprobs"][1] = float("-inf")
    folder = record(tmp_path / "run", {1: [impossible]})
    write_report([folder])
    entry = data_of(folder / "report.html")["runs"][0]["reader"]["steps"][0]
    assert unpacked(entry["teacher_logprob"], "<f4")[1] == float("-inf")


def test_hostile_text_and_names_stay_data(tmp_path: Path) -> None:
    folder = record(tmp_path / "<b onmouseover=x>&run", {1: [sample(0, problem=HOSTILE, row=HOSTILE)]})
    (page,) = write_report([folder])
    text = page.read_text(encoding="utf-8")
    assert "<b onmouseover" not in text
    assert text.count("</script>") == 3
    assert "<title>Report: &lt;b onmouseover=x&gt;&amp;run</title>" in text
    assert data_of(page)["runs"][0]["reader"]["problems"] == [HOSTILE]


def test_the_page_loads_nothing_and_runs_its_own_scripts_alone(tmp_path: Path) -> None:
    (page,) = write_report([record(tmp_path / "run")])
    text = page.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'"
    assert set(rules["script-src"].split()) == {f"'sha256-{d}'" for d in re.findall(r"sha256-([^']*)'", policy[1])}
    assert "unsafe" not in rules["script-src"]
    assert not re.search(r"<(link|img|iframe|object|embed|script)\b[^>]*\b(src|href)=", text.split("<script>")[0])


def test_several_runs_are_laid_over_each_other_under_their_names(tmp_path: Path) -> None:
    first, second = record(tmp_path / "renio"), record(tmp_path / "uniform", {1: [sample(0)]}, weighting={"type": "uniform"})
    write_report([first, second], tmp_path / "both.html")
    runs = data_of(tmp_path / "both.html")["runs"]
    assert [(run["label"], run["steps"]) for run in runs] == [("renio", [1, 2, 3]), ("uniform", [1])]
    assert not (first / "report.html").exists()


def test_a_run_that_is_being_written_is_shown_as_far_as_it_got(tmp_path: Path) -> None:
    folder = record(tmp_path / "run", ended=False)
    for path in (folder / "metrics.jsonl", folder / "samples/step_000003.jsonl", folder / "batches.jsonl"):
        path.write_text(path.read_text()[:-40])
    (folder / "evaluations.jsonl").unlink()
    write_report([folder])
    (run,) = data_of(folder / "report.html")["runs"]
    assert run["steps"] == [1, 2]
    assert run["weights"]["counts"] == [4, 4, 3]
    assert "still running" in dict(run["facts"])["Steps"]
    assert "Held-out accuracy" not in dict(run["facts"])


def test_a_line_that_was_torn_within_a_character_is_left_out(tmp_path: Path) -> None:
    folder = record(tmp_path / "run", {1: [sample(0), sample(1, problem="größer")]}, ended=False)
    path = folder / "samples/step_000001.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index("ö".encode()) + 1])
    (folder / "batches.jsonl").unlink()  # a step's line is written after its samples
    write_report([folder])
    assert data_of(folder / "report.html")["runs"][0]["weights"]["counts"] == [1]


def test_a_run_without_samples_or_verdicts_or_tokenizer_has_a_page_that_says_so(tmp_path: Path) -> None:
    empty = record(tmp_path / "empty", {1: []})
    unread = record(tmp_path / "unread", {1: [sample(0, verdict=None)]}, student=str(tmp_path / "gone"))
    write_report([empty, unread], tmp_path / "page.html")
    first, second = data_of(tmp_path / "page.html")["runs"]
    assert first["reader"]["steps"] == first["weights"]["steps"] == []
    assert second["reader"]["pieces"]["texts"][0].startswith("[")
    assert second["reader"]["steps"][0]["text"] == ["37+48=85;#85"]
    assert any("No tokenizer could be loaded" in note for note in second["notes"])
    assert "AUROC of the weights" not in dict(second["facts"])


def skip_a_step(folder: Path) -> None:
    """Let the run go on with a step that trained on nothing."""
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 4, "time/step": 3.0, "response/tokens": 9.0}) + "\n")


def test_steps_that_skipped_training_leave_gaps_in_the_curves(tmp_path: Path) -> None:
    folder = record(tmp_path / "run")
    skip_a_step(folder)
    write_report([folder])
    (run,) = data_of(folder / "report.html")["runs"]
    assert run["metrics"]["loss"][-1] is None
    assert run["metrics"]["response/tokens"][-1] == 9.0
    assert run["spent"]["other"][-1] == 3.0


@pytest.mark.slow
def test_plots_are_written_as_png_beside_the_page(tmp_path: Path) -> None:
    folders = [record(tmp_path / "_a$b$"), record(tmp_path / "b", {1: [sample(0)]})]
    skip_a_step(folders[0])
    written = write_report(folders, tmp_path / "page.html", png=True)[1:]
    assert {path.parent for path in written} == {tmp_path / "page"}
    names = {path.stem for path in written}
    assert names >= {"loss", "divergence", "accuracy", "length", "effective-sample-size", "staleness", "timeline", "weights"}
    assert sorted(tmp_path.glob("page/*")) == sorted(written)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


@pytest.mark.slow
def test_plots_never_go_into_a_run_that_has_the_pages_name(tmp_path: Path) -> None:
    folder = record(tmp_path / "rr", {1: [sample(0)]})
    before = sorted(folder.rglob("*"))
    written = write_report([folder], tmp_path / "rr.html", png=True)
    assert {path.parent for path in written[1:]} == {tmp_path / "rr-plots"}
    assert sorted(folder.rglob("*")) == before


def test_the_moves_of_an_adaptive_weighting_have_curves_and_other_runs_none(tmp_path: Path) -> None:
    folder = record(tmp_path / "run", steps={}, weighting={"type": "adaptive"})
    sink = JsonlSink(folder / "metrics.jsonl")
    for step in (1, 2):  # no recovery is known at first
        known = {"adaptive/recovery": 0.1, "adaptive/recovery_low": 0.0, "adaptive/recovery_high": 0.3} if step > 1 else {}
        sink.write(step, line(step) | {"adaptive/strength": 0.0, "adaptive/after_pivotal": 1 - step / 4} | known)
    plain = record(tmp_path / "plain")
    both = data_of(write_report([folder, plain], tmp_path / "page.html")[0])
    assert {curve["id"] for curve in both["curves"]} >= {"adaptive", "recovery"}
    adaptive, other = both["runs"]
    assert adaptive["metrics"]["adaptive/after_pivotal"] == [0.75, 0.5]
    assert adaptive["metrics"]["adaptive/recovery"] == [None, 0.1]
    assert set(other["metrics"]["adaptive/strength"]) == {None}
    alone = data_of(write_report([plain], tmp_path / "alone.html")[0])
    assert not {curve["id"] for curve in alone["curves"]} & {"adaptive", "recovery"}


def test_a_mixture_has_a_line_for_each_source_and_says_their_shares(tmp_path: Path) -> None:
    sources = [{"path": "sums.jsonl", "weight": 3}, {"path": "words.jsonl", "task": "plain"}]
    folder = record(tmp_path / "run", steps={}, data={"sources": sources})
    sink = JsonlSink(folder / "metrics.jsonl")
    for step in (1, 2):
        found = {
            f"source/{name}/{what}": 0.25 * step for name in ("sums", "words") for what in ("accuracy", "pivotal", "weight")
        }
        sink.write(step, line(step) | found | ({} if step == 1 else {"source/words/eval_accuracy": 1.0}))
    found = data_of(write_report([folder, record(tmp_path / "other")], tmp_path / "page.html")[0])
    curves = {curve["id"]: curve for curve in found["curves"]}
    assert curves["source-accuracy"]["metrics"] == ["source/sums/accuracy", "source/words/accuracy"]
    assert curves["source-weight"]["names"] == ["sums", "words"]
    mixed, other = found["runs"]
    assert mixed["metrics"]["source/words/pivotal"] == [0.25, 0.5]
    assert other["metrics"]["source/words/pivotal"] == [None] * 3
    assert dict(mixed["facts"])["Sources"] == "sums 75% of the prompts, words 25% of the prompts"
    assert "Sources" not in dict(other["facts"])
    alone = data_of(write_report([tmp_path / "other"], tmp_path / "alone.html")[0])
    assert not any(curve["id"].startswith("source-") for curve in alone["curves"])
