"""A live run on real engines: scaled, paused, checkpointed, and hit again and again; nothing is lost and nothing done twice."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from renio_pipeline.ledger import history, prove_exactly_once, replayed
from tests.chaos.monkey import Monkey

STEPS = 10_000  # the test itself ends the run
QUICK = [
    f"steps={STEPS}",
    "batch_size=16",
    "data.problems=512",
    "evaluate.problems=0",
    "checkpoint.every=4",
    "faults.heartbeat_seconds=10",
    "max_staleness=1",
    "pools.trainer.replicas=2",
]
QUICK += ["metrics_port=0"]  # so that counters can be held against the ledgers


@pytest.fixture(scope="module")
def monkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monkey]:
    """One run for all tests here, which go through it in their order. It starts with one generator and one teacher."""
    with Monkey(tmp_path_factory.mktemp("chaos") / "run", 7, QUICK, forked=True) as made:
        yield made


def counters(folder: Path) -> Counter[str]:
    """What the live run's endpoint says now, summed over labels."""
    (address,) = json.loads((folder / "prometheus.json").read_text())[0]["targets"]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    found: Counter[str] = Counter()
    for sample in (sample for family in families for sample in family.samples):
        found[sample.name] += sample.value  # type: ignore[assignment]
    return found


def counters_agree_with_the_ledgers(monkey: Monkey) -> None:
    monkey.whole()
    monkey.ask("pause", 120)  # so that nothing counts meanwhile
    found, steps = counters(monkey.folder), history(monkey.folder)
    once = sum(len(ids) for ranks in steps.values() for ids in ranks.values())
    assert found["renio_steps_total"] == len(steps) + found["renio_replayed_steps_total"]
    assert found["renio_samples_trained_total"] == once + found["renio_replayed_samples_total"]
    # A step is in a ledger before its figures are written, and counts from then on.
    assert found["renio_replayed_steps_total"] <= replayed(monkey.folder)
    assert found["renio_pool_restarts_total"] >= 4, "one for each blow"
    monkey.ask("resume")


def writers(folder: Path, key: str, after: int) -> set[str]:
    """Who wrote or scored the samples of the steps after one."""
    files = [p for p in (folder / "samples").glob("step_*.jsonl") if int(p.stem.removeprefix("step_")) > after]
    return {json.loads(line)[key] for path in files for line in path.read_text().splitlines()}


def restarts(monkey: Monkey) -> dict[str, int]:
    return {pool: found["restarts"] for pool, found in monkey.whole()["pools"].items()}


def scale(monkey: Monkey, size: int) -> None:
    """Give both pools a size, and see that just so many work from then on."""
    sizes = {"generator": size, "teacher": size}
    monkey.whole()
    assert {pool: reply["target"] for pool, reply in monkey.ask("scale", **sizes).items()} == sizes
    found = monkey.whole(monkey.whole()["step"] + 1)
    assert {pool: found["pools"][pool]["serving"] for pool in sizes} == sizes
    monkey.whole(found["step"] + 2)
    for pool in sizes:
        assert writers(monkey.folder, pool, found["step"] + 1) == {str(slot) for slot in range(size)}, f"{pool}s at size {size}"


@pytest.mark.timeout(600)
def test_both_pools_grow_beyond_what_they_started_with_while_the_run_goes_on(monkey: Monkey) -> None:
    scale(monkey, 2)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "hits",
    [[("trainer", "SIGKILL")], [("generator", "SIGSTOP"), ("teacher", "SIGKILL"), ("weighting", "SIGKILL")]],
    ids=["a rank", "one of each other pool at once"],
)
def test_workers_that_are_killed_or_stopped_are_replaced(monkey: Monkey, hits: list[tuple[str, str]]) -> None:
    monkey.strike(*hits)


@pytest.mark.timeout(600)
def test_both_pools_shrink_while_the_run_goes_on_and_leaving_is_not_dying(monkey: Monkey) -> None:
    before = restarts(monkey)
    scale(monkey, 1)
    assert restarts(monkey) == before


@pytest.mark.timeout(300)
def test_a_pause_holds_the_run_and_a_checkpoint_can_be_had_meanwhile(monkey: Monkey) -> None:
    monkey.whole()
    assert monkey.ask("pause", 120) == {"state": "paused"}
    asked = monkey.ask("checkpoint", 120)
    found = monkey.whole()
    assert (found["state"], found["step"]) == ("paused", asked["step"])
    assert all(pool["in_flight"] == 0 for name, pool in found["pools"].items() if "in_flight" in pool)
    assert (Path(asked["path"]) / "run.json").is_file()
    assert monkey.ask("resume") == {"state": "running"}
    monkey.whole(asked["step"])


@pytest.mark.timeout(600)
def test_the_run_is_stopped_and_every_sample_was_trained_on_once(monkey: Monkey) -> None:
    """The driver's own death, and a successor: ``test_resume.py``."""
    counters_agree_with_the_ledgers(monkey)
    last = monkey.whole(monkey.whole()["step"] + 2)["step"]
    monkey.ask("stop")
    monkey.finish()
    prove_exactly_once(monkey.folder)
    steps = history(monkey.folder)
    assert min(steps) == 1
    assert max(steps) >= last
    assert replayed(monkey.folder) > 0, "nothing was ever trained again: the faults tested nothing"
    resumes = [json.loads(line)["incarnation"] for line in (monkey.folder / "resumes.jsonl").read_text().splitlines()]
    assert resumes == [1], "for the rank"
