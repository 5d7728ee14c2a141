"""``renio arms`` on real engines: two arms and two seeds, on generators and a teacher that are loaded once."""

from __future__ import annotations

import json
from pathlib import Path

from tests.ray.runs import SMALL, finish, lines_of, start


def test_a_race_on_kept_engines_pairs_its_runs(tmp_path: Path) -> None:
    out = tmp_path / "race"
    small = ["batch_size=16", "data.problems=64", "evaluate.problems=16", "deterministic=true", *SMALL]
    arms = ["--arm", "uniform:", "weighting.type=uniform", "--arm", "fast:", "trainer.lr=2e-3"]
    command = ["arms", "configs/demo.yaml", *small, "--out", str(out), *arms, "--steps", "1", "--seeds", "2"]
    shown = finish(start(*command))
    assert "after 1 seed" in shown
    assert "after 2 seeds" in shown
    responses = {
        (seed, arm): [line["token_ids"] for line in lines_of(out / f"seed-{seed}/{arm}/samples/step_000001.jsonl")]
        for seed in (0, 1)
        for arm in ("uniform", "fast")
    }
    for seed in (0, 1):
        assert responses[seed, "uniform"] == responses[seed, "fast"], "both begin with the student's own weights"
    assert responses[0, "uniform"] != responses[1, "uniform"]
    race = json.loads((out / "arms.json").read_text())
    assert [look["seeds"] for look in race["looks"]] == [1, 2]
    answers = {path.parent.name: json.loads(path.read_text()) for path in out.glob("seed-0/*/held_out.json")}
    assert all(len(each) == 16 for each in answers.values())
    mean = sum(answers["fast"].values()) / 16
    assert abs(race["looks"][0]["accuracy"]["fast"] - mean) < 1e-9
