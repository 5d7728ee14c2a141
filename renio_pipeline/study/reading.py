"""Sentences about the results, generated from the numbers by fixed rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from renio_pipeline.study.findings import Comparison, Group, gain, mean
from renio_pipeline.study.plan import Experiment
from renio_pipeline.study.regression import Regression
from renio_pipeline.study.results import Record
from renio_pipeline.study.statistics import CLAIM_PAIRS, Estimate
from renio_pipeline.study.tables import READINGS, difference, shown


def overall(found: Sequence[tuple[str, Comparison]]) -> str:
    """The paper's claims one by one, with the number of each outcome. ``found``: pairs of experiment and comparison.

    Experiments that share both arms' runs have one test between them, however many of them show it.
    """
    papers = [(name, c) for name, c in found if c.claim.source == "paper"]
    tests = distinct(papers)
    first = [shown_in[0][1] for shown_in in tests]
    counts = Counter(c.outcome for c in first)
    few = sum(c.difference.n < CLAIM_PAIRS for c in first)
    lines = [
        f"The paper's own claims were put to the test {len(tests)} times: {counts['held']} held, {counts['reversed']} were "
        f"reversed, and {counts['no claim']} carry no claim"
        + (f", {few} of them because they have fewer than {CLAIM_PAIRS} pairs." if few else ".")
        + (
            f" Some experiments show the same runs again, so that the sections below have {len(papers)} lines for these tests."
            if len(papers) > len(tests)
            else ""
        ),
        "",
    ]
    for outcome in ("held", "reversed", "no claim"):
        lines += [f"* {READINGS[outcome]}: {sentence(*shown_in)}" for shown_in in tests if shown_in[0][1].outcome == outcome]
    return "\n".join(lines)


def distinct(found: Sequence[tuple[str, Comparison]]) -> list[list[tuple[str, Comparison]]]:
    """The comparisons by the runs that they compare. In each group the one with the most pairs comes first."""
    by_runs: dict[tuple[str, str, str], list[tuple[str, Comparison]]] = {}
    for name, c in found:
        by_runs.setdefault((*c.runs, c.claim.than if c.unit == "AUROC" else ""), []).append((name, c))
    return [sorted(group, key=lambda named: -named[1].difference.n) for group in by_runs.values()]


def sentence(*shown_in: tuple[str, Comparison]) -> str:
    """A comparison with its difference, under each name that the experiments give it."""
    (name, first), *others = shown_in
    told = f"({name}) {first.claim.better} against {first.claim.than}{_with(first)}: {difference(first, unit=True)}"
    again = []
    for name, c in others:
        same = (c.claim.better, c.claim.than) == (first.claim.better, first.claim.than)
        again.append(f"({name})" + ("" if same else f" {c.claim.better} against {c.claim.than}") + _with(c))
    return told + (f"; the same runs: {', '.join(again)}" if again else "")


def _with(c: Comparison) -> str:
    return f" with {c.where}" if c.where else ""


def of_everywhere(found: Sequence[tuple[str, Comparison]], better: str, than: str) -> str:
    """One arm against another in all of the study's cases that compare them, and the worst that an interval allows."""
    cases = [(name, c) for name, c in found if (c.claim.better, c.claim.than) == (better, than)]
    if not cases:
        return ""
    counts = Counter(c.difference.reading for _, c in cases)
    lowest = min((c.difference.low for _, c in cases if c.difference.n > 1), default=None)
    bound = "" if lowest is None else f" The lowest end of any of their intervals is {lowest:+z.1f} points."
    lines = [
        f"The arm *{better}* was compared with *{than}* in {len(cases)} cases: {counts['better']} better, {counts['worse']} "
        f"worse, {counts['no claim']} no claim.{bound}",
        "",
        *(f"* {READINGS[c.outcome]}: {sentence((name, c))}" for name, c in cases),
    ]
    return "\n".join(lines)


def of_experiment(found: Sequence[Comparison]) -> str:
    """The outcomes of an experiment's comparisons: how many can be claimed, and which."""
    if not found:
        return "There are no results yet."
    claimed = [c for c in found if c.outcome != "no claim"]
    text = f"Of {len(found)} comparisons {len(claimed)} can be claimed."
    for outcome in ("held", "reversed", "better", "worse"):
        named = [f"{c.claim.better} against {c.claim.than} ({c.where or 'all'})" for c in claimed if c.outcome == outcome]
        if named:
            text += f" {outcome.capitalize()}: {'; '.join(named)}."
    return text


def of_regression(found: Sequence[Regression]) -> str:
    """The slope on each measure of the teachers, and how many signs it foretells."""
    lines = []
    for r in found:
        right = sum(t.agrees for t in r.teachers)
        over_seeds = "" if r.over_seeds is None else f"; the lines of each seed: {shown(r.over_seeds, 2, sign=True)}"
        lines.append(
            f" By {r.predictor}: for each point more, {r.claim.better} gains "
            f"{shown(r.over_teachers.slope, 2, sign=True, unit=' points,')} on {r.claim.than} (a line through the teachers' "
            f"means{over_seeds}). The line through all other teachers foretells the sign for {right} of {len(r.teachers)}."
        )
    return "".join(lines)


def of_harm(experiment: Experiment, groups: Sequence[Group]) -> str:
    """The arms that training made worse: a better arm among them may have done less harm rather than more good."""
    found = [
        (f"{arm} ({group.where})" if group.where else arm, change)
        for group in groups
        for arm in experiment.arms
        if (change := mean(group.arms[arm], gain)) is not None and change.reading == "worse"
    ]
    if not found:
        return ""
    named = "; ".join(f"{name}: {shown(change, sign=True, unit=' points,')}" for name, change in found)
    return f" These arms ended below where they started, so a better arm may only have done less harm: {named}."


def of_weights(areas: dict[str, Estimate | None]) -> str:
    """The AUROC of the weight itself, by teacher."""
    known = {where: found for where, found in areas.items() if found is not None}
    if not known:
        return "There are no results yet."
    best, worst = max(known, key=lambda w: known[w].mean), min(known, key=lambda w: known[w].mean)
    text = f"The weight's AUROC is highest with {best} ({shown(known[best], 3)})"
    return f"{text}." if best == worst else f"{text} and lowest with {worst} ({shown(known[worst], 3)})."


def of_size(parameters: Sequence[int], grown: Mapping[str, int]) -> str:
    """The sizes of the models. ``grown``: those with layers of their own, which are measured as teachers alone, by name."""
    thousands = [round(count / 1e3) for count in parameters]
    if not thousands:
        return ""
    text = f"The models have {min(thousands)} to {max(thousands)} thousand parameters"
    for count in sorted(set(grown.values())):
        names = ", ".join(f"`{name}`" for name in grown if grown[name] == count)
        text += f"; those that were grown ({names}) have {count / 1e3:.0f} thousand"
    return f"{text}."


def of_cost(records: Iterable[Record]) -> str:
    """The cost of the study."""
    seconds = sorted(float(r["core_seconds"]) for r in records)
    if not seconds:
        return "Nothing has been computed yet."
    median, most, hours = seconds[len(seconds) // 2], seconds[-1], sum(seconds) / 3600
    return (
        f"{len(seconds)} runs took {median:.0f} seconds of one core at the median and {most:.0f} at most, {hours:.1f} core "
        "hours in total."
    )
