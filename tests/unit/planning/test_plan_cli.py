"""`renio plan`: what it says, where it knows it from, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from renio_pipeline import cli
from renio_pipeline.config import ConfigError, load
from renio_pipeline.planning.known import Sources, gather
from renio_pipeline.planning.measured import measured
from renio_pipeline.planning.plan import Planner
from tests.unit.conftest import make_config, values
from tests.unit.recorded_runs import record

ROOT = Path(__file__).parents[3]
GPU = str(ROOT / "configs/gpu.yaml")
ON_POLICY = ("max_staleness=0", "in_flight=drain")
RATES: dict[str, Any] = {
    "generator": {"tokens_per_second": {1: 150, 64: 5000}},
    "teacher": {"tokens_per_second": 30000},
    "trainer": {"tokens_per_second": 9000},
    "sync_seconds": 1.5,
    "response_tokens": 300,
    "prompt_tokens": 100,
}


@pytest.fixture
def rates(tmp_path: Path) -> str:
    return given(tmp_path, RATES)


def given(folder: Path, rates: dict[str, Any]) -> str:
    path = folder / "rates.yaml"
    OmegaConf.save(OmegaConf.create(rates), path)
    return str(path)


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.main(["plan", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["plan", *arguments]) == 2
    written = capsys.readouterr()
    assert written.out == ""
    return written.err.removeprefix("error: ").strip()


@pytest.mark.parametrize(
    "config", ["gpu", "paper/qwen3-1.7b-opd", "paper/qwen3-1.7b-opsd", "paper/qwen3-4b-opsd", "paper/qwen3-8b-opsd"]
)
def test_every_shipped_configuration_for_gpus_can_be_planned_without_a_network(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = planned(capsys, str(ROOT / f"configs/{config}.yaml"), "--device", "h100", "--offline")
    assert found["memory"]["generator"]["fits"]
    assert found["configured"]["obstacles"] == []
    assert found["best"][0]["samples_per_second"] >= found["configured"]["samples_per_second"]


@pytest.mark.slow
def test_the_table_has_the_split_its_overrides_and_where_it_is_known_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", GPU, "--gpus", "16", "--device", "h100"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "generator: estimated from h100's data sheet" in text
    assert "response lengths: assumed, half of max_response_tokens" in text
    best = planned(capsys, "--config", GPU, "--gpus", "16", "--device", "h100")
    assert best["overrides"] == [
        f"pools.{pool}.replicas={best['best'][0][key]}"
        for pool, key in (("generator", "generators"), ("teacher", "teachers"), ("trainer", "trainer_ranks"))
    ]
    assert f"to use the best split: {' '.join(best['overrides'])}" in text
    again = planned(capsys, "--config", GPU, "--device", "h100", *best["overrides"])
    assert again["configured"] == best["best"][0]


def test_idle_shares_and_rates_follow_from_the_step(capsys: pytest.CaptureFixture[str], rates: str) -> None:
    found = planned(capsys, GPU, *ON_POLICY, "batch_size=96", "pools.teacher.replicas=3", "--rates", rates)
    configured = found["configured"]
    trained = 96 * (100 + 300) / 9000 / 2
    assert configured["samples_per_second"] == pytest.approx(96 / configured["step_seconds"])
    assert configured["samples_per_second_per_gpu"] == pytest.approx(configured["samples_per_second"] / 9)
    assert configured["idle"]["trainer"] == pytest.approx(1 - (trained + 1.5) / configured["step_seconds"], abs=0.01)
    assert configured["idle"]["teacher"] == pytest.approx(1 - 96 * 400 / 30000 / 3 / configured["step_seconds"], abs=0.01)


def test_rates_count_before_a_run_and_a_run_before_a_device(tmp_path: Path) -> None:
    run = recorded(tmp_path)
    config = make_config(batch_size=4)
    both = gather(config, Sources(run=run, device="h100", rates=Path(given(tmp_path, {"sync_seconds": 7.0}))))
    assert both.rates.sync_seconds == 7.0
    assert both.sources["sync"] == "given"
    assert both.sources["trainer"] == "measured"
    alone = gather(config, Sources(device="h100"))
    assert alone.sources["trainer"] == "estimated from h100's data sheet"


def recorded(
    folder: Path, lengths: Sequence[int] = (13, 13, 13, 13), keys: Mapping[str, Any] | None = None, **changes: float
) -> Path:
    """A run of four steps of four samples of 13 tokens on average; see ``recorded_runs.line`` for its times."""
    of_step = [
        {"sample_id": i, "token_ids": [5] * n, "raw_weight": 1, "weight": 1, "verdict": None} for i, n in enumerate(lengths)
    ]
    steps = dict.fromkeys((1, 2, 3, 4), of_step)
    run = record(folder / "run", steps, pools={"trainer": {"replicas": 2}}, **keys or {})
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    more = {
        "filter/drawn": 4,
        "filter/kept": 1.0,
        "response/tokens": 13.0,
        "tokens/generated": 52,
        "tokens/scored": 112,
        "tokens/trained": 92,
        "pool/generator/size": 1,
        "pool/teacher/size": 2,
        "time/sync_wait": 0.125,
    }
    (run / "metrics.jsonl").write_text("".join(json.dumps({**line, **more, **changes}) + "\n" for line in lines))
    return run


def test_a_run_says_how_fast_its_stages_were(tmp_path: Path) -> None:
    found = measured(recorded(tmp_path))
    assert found.lengths.mean == 13
    assert found.generator.tokens_per_second == {4: 52 / (0.75 * 10)}
    assert found.teacher.tokens_per_second == 112 / (2 * 0.5 * 10)
    assert found.trainer.tokens_per_second == 92 / (2.0 * 2)
    assert found.sync_seconds == 0.5 - 0.125
    assert (found.prompt, found.teacher_prompt) == ((92 - 52) / 4, (112 - 52) / 4)
    assert found.weigh_seconds == 0.5
    assert measured(recorded(tmp_path / "slow", **{"time/step": 12.0})).weigh_seconds == 0.5 + 2.0  # where no stage works
    assert found.steps == 2  # the first two warm up


RECORDED = {"type": "recorded", "path": "scores"}
TOP_K = {"type": "top_k_forward_kl", "k": 4}


def test_a_run_whose_teacher_is_recorded_has_no_teachers_speed(tmp_path: Path) -> None:
    keys = {"teacher": RECORDED, "objective": TOP_K, "batch_size": 4}
    of_step = {
        "filter/drawn": 0,
        "tokens/generated": 0,
        "tokens/scored": 0,
        "off_policy/fraction": 1.0,
        "off_policy/tokens": 13.0,
    }
    run = recorded(tmp_path, keys=keys, **of_step)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    nowhere = ("idle/teacher", "idle/generator", "pool/teacher/size", "pool/generator/size")
    kept = [{name: value for name, value in line.items() if name not in nowhere} for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    found = measured(run)
    assert (found.generator, found.teacher) == (None, None)
    assert found.trainer.tokens_per_second == 92 / (2.0 * 2)
    assert (found.prompt, found.teacher_prompt) == ((92 - 52) / 4, 0)


def test_where_some_teachers_are_recorded_the_others_speed_is_of_what_they_read(tmp_path: Path) -> None:
    keys = {"teacher": {}, "teachers": {"a": RECORDED, "b": {"model": "embedded:teacher"}}, "objective": TOP_K, "batch_size": 4}
    half = {"filter/drawn": 2, "tokens/scored": 56, "off_policy/fraction": 0.5, "off_policy/tokens": 13.0}
    found = measured(recorded(tmp_path, keys=keys, **half))
    assert found.teacher.tokens_per_second == 56 / (2 * 0.5 * 10)
    assert (found.prompt, found.teacher_prompt) == ((92 - 52) / 4, (56 - 26) / 2)


def test_a_run_of_something_else_is_said_to_be_that(tmp_path: Path) -> None:
    run = recorded(tmp_path)
    assert "measured otherwise" not in gather(make_config(batch_size=64), Sources(run=run)).sources
    other = gather(make_config(student="embedded:teacher", trainer={"zero_stage": 3}), Sources(run=run))
    assert "another student, trainer.zero_stage: its rates may not apply" in other.sources["measured otherwise"]


@pytest.mark.parametrize("lengths", [(13, 13, 13, 13), (4, 8, 12, 28)])
def test_a_measured_run_is_planned_as_it_was(tmp_path: Path, lengths: Sequence[int]) -> None:
    """Its configuration, at its own rates: generation took 7.5 s, training 2.0 s, the sync 0.375 s, weighing 0.5 s."""
    config = make_config(batch_size=4, max_response_tokens=48, pools={"teacher": {"replicas": 2}, "trainer": {"replicas": 2}})
    known = gather(config, Sources(run=recorded(tmp_path, lengths)))
    step = Planner(config, known).configured.replayed
    assert step.parts["writing"] == pytest.approx(7.5, rel=0.01)
    assert step.parts["training"] == pytest.approx(2.0, rel=0.25)  # a sample of 28 tokens and its prompt is not shared out
    others = step.parts["scoring of the last ones"] + step.parts["training"] + 0.375 + 0.5
    assert step.step == pytest.approx(7.5 + others, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--config: no configuration is named"),
        ([GPU], "the speed of the generator is not known: give a --device (a100-40, a100, h100"),
        ([GPU, "--device", "h1000"], "--device: 'h1000' is not known; known devices: a100-40, a100, h100"),
        ([GPU, "--device", "h100", "--gpus", "2"], "--gpus: 2 given, but a generator, 1 teacher(s) and 1 trainer rank(s) need"),
        ([GPU, "--device", "h100", "--gpus", "0"], "--gpus: 0 given, but at least 1 is needed"),
        ([GPU, "--rates", "none.yaml"], "--rates: none.yaml does not exist"),
        ([GPU, "--from", "nowhere"], "--from: nowhere has no config.yaml: expected a run directory"),
        ([GPU, "teacher.model=Qwen/Qwen3-14B", "--device", "l4"], "no split fits:"),
        ([GPU, "payload.max_bytes=1000", "--device", "h100"], "no split fits:\n  a step's payload may take 136314880 bytes"),
        ([GPU, "student=Some/Other", "--device", "h100", "--offline"], "student: 'Some/Other' is not in the hub's cache"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_refused_by_the_option_that_says_so(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, *arguments).startswith(says)


def test_what_does_not_fit_is_said_part_by_part_and_with_what_would_help(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, GPU, "student=Qwen/Qwen3-32B", "--device", "h100")
    assert "one of 6 trainer ranks needs" in said
    assert "raise trainer.zero_stage" in said
    assert "a generator needs" not in said  # 61 GiB of weights do fit


def test_a_configured_split_that_does_not_fit_is_said_so_beside_one_that_does(capsys: pytest.CaptureFixture[str]) -> None:
    keys = ["student=Qwen/Qwen3-8B", "trainer.zero_stage=3", "trainer.micro_batch_tokens=32768"]
    assert cli.main(["plan", GPU, *keys, "--device", "h100"]) == 0
    assert "configured, does not fit: one of 2 trainer ranks needs" in " ".join(capsys.readouterr().out.split())
    found = planned(capsys, GPU, *keys, "--device", "h100")
    assert found["configured"]["trainer_ranks"] == 2 < min(best["trainer_ranks"] for best in found["best"])
    assert found["memory"]["trainer"]["fits"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"generater": {}}, "generater: unknown key; allowed: device, generator, "),
        ({"trainer": {"tokens": 3}}, "trainer.tokens: unknown key; allowed: step_seconds, tokens_per_second"),
        ({"teacher": {"tokens_per_second": -1}}, "teacher.tokens_per_second: Input should be greater than 0 (given: -1)"),
        ({"generator": {"tokens_per_second": {0: 5}}}, "generator.tokens_per_second.0: Input should be greater than 0"),
        (
            {"response_tokens": 5000},
            "response_tokens: a mean length of 5000 tokens is not between 0 and the longest, 1024",
        ),
    ],
)
def test_a_fault_of_a_rates_file_names_the_key(
    change: dict[str, Any], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refused(capsys, GPU, "--rates", given(tmp_path, {**RATES, **change}))


def test_a_run_that_trained_nothing_yet_says_nothing(tmp_path: Path) -> None:
    run = record(tmp_path / "run", {})
    with pytest.raises(ConfigError, match=r"has not trained a step yet"):
        measured(run)


def test_a_device_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = {"memory_gib": 60, "bf16_tflops": 400, "fp32_tflops": 30, "bandwidth_gb": 1500}
    found = planned(capsys, GPU, "trainer.micro_batch_tokens=8192", "--rates", given(tmp_path, {"device": device}))
    assert found["memory"]["trainer"]["limit"] == pytest.approx(0.9 * 60 * 2**30)


def test_no_engine_and_no_torch_is_imported_for_a_plan() -> None:
    code = (
        "import sys; from renio_pipeline.cli import main\n"
        f"assert main(['plan', {GPU!r}, '--device', 'h100', '--json']) == 0\n"
        "heavy = ('torch', 'vllm', 'ray', 'deepspeed', 'transformers', 'datasets')\n"
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr.strip() == "[]"


def test_colocated_pools_share_their_gpus_and_take_turns(capsys: pytest.CaptureFixture[str]) -> None:
    keys = [
        *ON_POLICY,
        "placement=colocated",
        "sync.backend=ipc",
        "pools.generator.replicas=2",
        "generator.engine.gpu_memory_utilization=0.5",
    ]
    found = planned(capsys, GPU, *keys, "--device", "h100", "--gpus", "8")
    assert found["configured"]["gpus"] == 2 + 2
    assert all(best["generators"] == best["trainer_ranks"] for best in found["best"])
    assert found["ahead"] is None
    assert found["memory"]["generator"]["limit"] == pytest.approx(0.5 * 79.2 * 2**30)


def test_several_teachers_share_the_rows(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    teachers = {"maths": {"model": "Qwen/Qwen3-8B"}, "code": {"model": "Qwen/Qwen3-14B"}}
    config = values(teachers=teachers, student="Qwen/Qwen3-1.7B", batch_size=64)
    del config["teacher"]
    OmegaConf.save(OmegaConf.create(config), tmp_path / "run.yaml")
    found = planned(capsys, str(tmp_path / "run.yaml"), "trainer.micro_batch_tokens=8192", "--device", "h100", "--gpus", "12")
    assert set(found["memory"]) == {"generator", "teacher.maths", "teacher.code", "trainer"}
    assert found["best"][0]["teachers"] % 2 == 0


def test_the_first_configuration_for_eight_gpus_has_the_split_that_the_planner_advises() -> None:
    config = load(ROOT / "configs/gpu.yaml")
    known = gather(config, Sources(device="h100", offline=True))
    planner = Planner(config, known, gpus=8)
    assert planner.best[0].split == planner.configured_split
    assert not planner.configured.obstacles
    header = (ROOT / "configs/gpu.yaml").read_text()
    replayed = planner.configured.replayed
    assert f"({replayed.step:.1f} s a step, {replayed.samples_per_second:.0f} samples a second" in header
    a100 = Planner(config, gather(config, Sources(device="a100", offline=True)), gpus=8).best[0].split
    numbers = {2: "two", 3: "three"}
    advised = f"{numbers[a100.generators]}, {numbers[a100.teachers]} and {numbers[a100.ranks]}"
    assert f"`--device a100` advises {advised}." in header
    deployed = load(ROOT / "deploy/kubernetes/gpu-8/run.yaml")
    assert (deployed.batch_size, deployed.max_staleness) == (config.batch_size, config.max_staleness)
    assert [deployed.pool(p).replicas for p in ("generator", "teacher", "trainer")] == [4, 2, 2]


def test_a_teacher_that_is_served_elsewhere_takes_no_gpu(
    capsys: pytest.CaptureFixture[str], rates: str, tmp_path: Path
) -> None:
    path = tmp_path / "served.yaml"
    teacher = {"model": "embedded:teacher", "type": "http", "urls": ["http://node:1"]}
    OmegaConf.save(OmegaConf.create(values(teacher=teacher, batch_size=16, max_response_tokens=512)), path)
    text = refused(capsys, str(path), "--device", "h100")
    assert text.startswith("the speed of a teacher that is served elsewhere is not known here: give a measured run with --from")
    found = planned(capsys, str(path), "--rates", rates, "--device", "h100", "--gpus", "8")
    assert "teacher" not in found["memory"]
    split = found["best"][0]
    assert (split["teachers"], split["generators"] + split["trainer_ranks"]) == (1, 8)
    assert split["gpus"] == 8


def test_a_run_without_a_teacher_is_planned_without_one(capsys: pytest.CaptureFixture[str], rates: str, tmp_path: Path) -> None:
    run = {"method": {"type": "grpo", "passes": 2}, "teacher": {}, "batch_size": 32, "samples_per_prompt": 8}
    OmegaConf.save(values(**run), tmp_path / "grpo.yaml")
    found = planned(capsys, "--config", str(tmp_path / "grpo.yaml"), "--gpus", "4", "--rates", rates)
    assert found["memory"].keys() == {"generator", "trainer"}
    assert all(answer["teachers"] == 0 for answer in found["best"])
    assert not [line for line in found["overrides"] if "teacher" in line]
