"""The report of real runs, opened in headless Chromium and clicked through: it shows the runs' numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from renio_pipeline import cli
from renio_pipeline.probe.results import write_report as write_probe
from renio_pipeline.report import write_report
from tests.ray.browser import CHROMIUM, NARROW, WIDE, chromium, opened, text, traces
from tests.ray.runs import STEPS, lines_of
from tests.unit.probe import made_up
from tests.unit.recorded_runs import record, sample

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (chromium, google-chrome)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(whole_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "report.html"
    assert cli.main(["report", str(whole_run), "--out", str(out)]) == 0
    return out


def test_the_plots_show_the_runs_numbers(whole_run: Path, report: Path, browser: Browser) -> None:
    metrics = lines_of(whole_run / "metrics.jsonl")
    evaluations = lines_of(whole_run / "evaluations.jsonl")
    of = {
        "loss": "loss",
        "divergence": "divergence",
        "accuracy": "reward/accuracy",
        "length": "response/tokens",
        "effective-sample-size": "weights/effective_sample_size",
        "staleness": "staleness/max",
    }
    with opened(browser, report) as page:
        for plot, metric in of.items():
            curve = traces(page, plot)[0]
            assert curve["x"] == list(range(1, STEPS + 1))
            assert curve["y"] == pytest.approx([line[metric] for line in metrics], rel=1e-5)
        held_out = traces(page, "accuracy")[1]
        assert held_out["x"] == [e["step"] for e in evaluations]
        assert held_out["y"] == pytest.approx([e["accuracy"] for e in evaluations], rel=1e-5)
        for pool, curve in zip(("generator", "teacher", "trainer"), traces(page, "idle"), strict=True):
            assert curve["y"] == pytest.approx([line[f"idle/{pool}"] for line in metrics], rel=1e-5)
        drawn = {stage["name"]: stage["y"] for stage in traces(page, "spent")}
        assert [sum(of_step) for of_step in zip(*drawn.values(), strict=True)] == pytest.approx(
            [line["time/step"] for line in metrics], rel=0.02
        )
        for step in (STEPS, STEPS - 1):
            line = metrics[step - 1]
            bars = {bar["name"]: (bar["base"][0], bar["x"][0]) for bar in traces(page, "timeline")}
            assert page.locator("#timeline-controls output").inner_text() == str(step)
            assert {name: bar[1] for name, bar in bars.items()} == pytest.approx(
                {name: line[f"time/{name}"] for name in ("generate", "score", "weigh", "train", "sync")}, rel=1e-2
            )
            assert bars["score"][0] == pytest.approx(line["time/start"] + line["time/first_response"], rel=1e-4)
            page.get_by_role("button", name="Previous step").click()


def test_weights_stand_against_verdicts_for_all_steps_and_for_one(whole_run: Path, report: Path, browser: Browser) -> None:
    def expected(samples: list[dict[str, Any]], key: str) -> dict[str, list[float]]:
        verdicts = {s["verdict"] for s in samples if s["verdict"] is not None}
        return {v: sorted(s[key] for s in samples if s["verdict"] == v) for v in verdicts}

    def shown(page: Page) -> dict[str, list[float]]:
        return {trace["name"]: sorted(trace["x"]) for trace in traces(page, "weights")}

    by_step = {s: lines_of(whole_run / f"samples/step_{s:06d}.jsonl") for s in range(1, STEPS + 1)}
    result = json.loads((whole_run / "result.json").read_text())
    with opened(browser, report) as page:
        everything = [s for samples in by_step.values() for s in samples]
        for verdict, values in expected(everything, "weight").items():
            assert shown(page)[verdict] == pytest.approx(values, rel=1e-5)
        assert f"AUROC {result['auroc']:.3f}" in text(page, "#weights-values")
        page.locator("#weights-controls select[name=step]").select_option("2")
        page.locator("#weights-controls select[name=of]").select_option("raw")
        for verdict, values in expected(by_step[2], "raw_weight").items():
            assert shown(page)[verdict] == pytest.approx(values, rel=1e-5)


def test_the_reader_shows_each_sample_and_the_numbers_of_its_tokens(whole_run: Path, report: Path, browser: Browser) -> None:
    samples = lines_of(whole_run / f"samples/step_{STEPS:06d}.jsonl")
    heaviest = max(samples, key=lambda s: s["weight"])
    with opened(browser, report) as page:
        cards = page.locator(".card")
        weights = [s["weight"] for s in sorted(samples, key=lambda s: -s["weight"])]
        texts = [re.search(r"weight ([\d.]+)", card)[1] for card in page.locator(".card .weight").all_inner_texts()]
        assert [float(t) for t in texts] == pytest.approx(weights, rel=1e-3)
        assert weights[0] == heaviest["weight"]

        first = cards.first
        written = next(s for s in samples if s["sample_id"] == int(first.get_attribute("data-sample")))
        assert written["problem"] in first.inner_text()
        assert (written["verdict"] or "") in first.locator(".badge").inner_text()
        assert first.locator(".token:not(.special)").all_inner_texts() == list(written["response"])
        pivotal = first.locator(".token").evaluate_all("(all) => all.flatMap((t, i) => t.matches('.pivotal') ? [i] : [])")
        assert pivotal == written["pivotal"]
        at = written["pivotal"][0]
        first.locator(".token").nth(at).click()
        assert_numbers(first.locator(".detail").inner_text(), written, at)
        assert first.locator(".token").nth(at).evaluate("(t) => getComputedStyle(t).textDecorationLine") == "underline"
        assert first.locator(".token").nth(at).evaluate("(t) => getComputedStyle(t).backgroundColor") != "rgba(0, 0, 0, 0)"

        first.locator(".response").focus()
        page.keyboard.press("Home")
        assert_numbers(first.locator(".detail").inner_text(), written, 0)
        page.keyboard.press("ArrowRight")
        assert_numbers(first.locator(".detail").inner_text(), written, 1)
        page.keyboard.press("ArrowDown")
        assert_numbers(first.locator(".detail").inner_text(), written, next((t for t in written["pivotal"] if t > 1), 1))


def assert_numbers(detail: str, written: dict[str, Any], at: int) -> None:
    student, teacher = written["student_logprobs"][at], written["teacher_logprobs"][at]
    found = re.search(
        r"token (\d+) of (\d+), id (\d+): log p student (\S+), teacher (\S+), log-ratio (\S+?)(, pivotal)?\.$", detail
    )
    assert found is not None, detail
    assert [int(found[i]) for i in (1, 2, 3)] == [at + 1, len(written["token_ids"]), written["token_ids"][at]]
    numbers = [float(found[i].replace("−", "-")) for i in (4, 5, 6)]
    assert numbers == pytest.approx([student, teacher, student - teacher], rel=2e-3, abs=1e-6)
    assert (found[7] is not None) == (at in written["pivotal"])


def test_the_reader_picks_sorts_filters_and_searches(whole_run: Path, report: Path, browser: Browser) -> None:
    samples = lines_of(whole_run / "samples/step_000002.jsonl")
    with opened(browser, report) as page:

        def ids() -> list[int]:
            return page.locator(".card").evaluate_all("(all) => all.map((card) => Number(card.dataset.sample))")

        page.locator("#reader-controls select[name=step]").select_option(label="2")
        assert sorted(ids()) == sorted(s["sample_id"] for s in samples)
        page.locator("#reader-controls select[name='sort by']").select_option("longest first")
        lengths = {s["sample_id"]: len(s["token_ids"]) for s in samples}
        assert [lengths[i] for i in ids()] == sorted(lengths.values(), reverse=True)
        page.locator("#reader-controls select[name=verdict]").select_option("correct")
        assert sorted(ids()) == [s["sample_id"] for s in samples if s["verdict"] == "correct"]
        page.locator("#reader-controls select[name=verdict]").select_option("any")
        page.locator("#reader-controls input").fill(samples[3]["problem"])
        assert samples[3]["sample_id"] in ids()
        assert len(ids()) < len(samples)
        page.locator("#reader-controls input").fill("no such text")
        assert ids() == []
        assert text(page, "#reader-count").startswith("0 of 0 samples")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_the_page_fits_and_takes_the_readers_colours(report: Path, browser: Browser, size: dict[str, int], scheme: str) -> None:
    def lightness(page: Page) -> int:
        return sum(map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]))

    def plot_text(page: Page) -> str:
        return page.evaluate("document.getElementById('plot-loss').layout.font.color")

    with opened(browser, report, size, scheme, touch=size is NARROW) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
        widths = page.locator(".plot").evaluate_all(
            "(all) => all.map((p) => p.querySelector('.main-svg').clientWidth - p.clientWidth)"
        )
        assert max(widths) <= 1
        assert (lightness(page) > 384) == (scheme == "light")
        before = plot_text(page)
        other = "dark" if scheme == "light" else "light"
        page.locator("#theme").select_option(other)
        assert (lightness(page) > 384) == (other == "light")
        assert plot_text(page) != before
        if size is NARROW:
            page.locator(".card .token").first.tap()
            assert "token 1 of" in text(page, ".card .detail")


def test_hostile_text_is_text_and_a_picker_changes_the_run(tmp_path: Path, browser: Browser) -> None:
    hostile = "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"
    first = record(tmp_path / "<img src=x onerror='window.pwned = 1'>", {1: [sample(0, problem=hostile, row=hostile)]})
    second = record(tmp_path / "other", {2: [sample(7, "1=1;#1"), sample(8, verdict=None)]}, student=str(tmp_path / "gone"))
    assert cli.main(["report", str(first), str(second), "--out", str(tmp_path / "page.html")]) == 0
    with opened(browser, tmp_path / "page.html") as page:
        assert text(page, ".card .problem") == hostile
        assert [trace["name"] for trace in traces(page, "loss")] == ["&lt;img src=x onerror='window.pwned = 1'>", "other"]
        page.locator("#run").select_option(label="other")
        assert page.locator(".card").count() == 2
        assert "No tokenizer could be loaded" in text(page, "#summary .note")
        assert page.locator(".card[data-sample='7'] .problem.text").inner_text() == "1=1;#1"
        assert page.locator(".card[data-sample='7'] .token").first.inner_text() == f"[{sample(7, '1=1;#1')['token_ids'][0]}]"
        assert page.locator("#timeline-controls output").inner_text() == "2"
        assert page.evaluate("window.pwned") is None


def test_the_reader_dims_a_token_by_its_factor(tmp_path: Path, browser: Browser) -> None:
    written = sample(1, "1=1;#1")
    factors = [1.0, 0.5, *(0.0 for _ in written["token_ids"][2:])]
    (page_file,) = write_report([record(tmp_path / "run", {1: [{**written, "token_factors": factors}]})])
    with opened(browser, page_file) as page:
        tokens = page.locator(".card .token")
        shown = [float(o) for o in tokens.evaluate_all("(all) => all.map((t) => getComputedStyle(t).opacity)")]
        assert shown == pytest.approx([1.0, 0.675, *(0.35 for _ in factors[2:])], abs=0.006)
        tokens.nth(1).click()
        assert ", factor 0.5." in text(page, ".card .detail")
        assert "Dimmed" in text(page, "#legend")


def test_a_probe_of_the_run_is_a_section_and_without_one_there_is_none(report: Path, browser: Browser, tmp_path: Path) -> None:
    folder = record(tmp_path / "run")
    write_probe(made_up.report(teacher="<b>maths</b>"), folder / "probes/20260101-000000")
    assert cli.main(["report", str(folder)]) == 0
    with opened(browser, folder / "report.html") as page:
        assert page.locator("#probe-body table").count() == 4
        assert page.locator("#probe-body td").first.inner_text() == "<b>maths</b>"
        assert "weighting.type=uniform weighting.after_pivotal=0" in page.locator("#probe-body pre").inner_text()
    with opened(browser, report) as page:
        assert not page.locator("#probe-section").is_visible()
        assert not page.locator("#probe-link").is_visible()
