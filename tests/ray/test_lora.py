"""LoRA: what generators serve is what the trainer has, merged or as an adapter, and the base weights never change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from transformers import AutoModelForCausalLM

from renio_pipeline.config import RunConfig
from renio_pipeline.models import info
from renio_pipeline.types import TrainBatch, TrainSample, Version
from tests.ray.conftest import demo, kill, run
from tests.ray.test_sync import Fleet, largest_gap, start_generator

SYNCS = 50
LORA = "trainer.lora={r: 4, alpha: 8, targets: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]}"
MODES = {
    "merged": ["sync.lora=merged", "trainer.zero_stage=2"],
    "adapter, separate process": [
        "sync.lora=adapter",
        "trainer.zero_stage=1",
        "generator.separate_process=true",
        "student=embedded:teacher",
    ],
    "merged, two ranks, ZeRO 3": ["sync.lora=merged", "trainer.zero_stage=3", "pools.trainer.replicas=2"],
    "adapter, two ranks, ZeRO 3": ["sync.lora=adapter", "trainer.zero_stage=3", "pools.trainer.replicas=2"],
}


@pytest.fixture(scope="module", params=MODES, ids=str)
def fleet(request: Any, ray_cluster: None) -> Any:
    common = ["objective={type: sampled}", "trainer.lr=0.01", "temperature=1.3", LORA, "checkpoint.merged=true"]
    made = Fleet(demo(*common, *MODES[request.param]))
    run(made.start())
    yield made
    made.end()


def base_of(config: RunConfig) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(info.resolve(config.student), dtype=torch.float32)
    return {name: p.detach() for name, p in model.named_parameters()}


def state(fleet: Fleet) -> dict[str, np.ndarray]:
    return ray.get([rank.state.remote() for rank in fleet.trainers.ranks])[0]


def test_log_probabilities_are_equal_after_each_sync_and_were_not_before(fleet: Fleet) -> None:
    async def go() -> list[float]:
        await fleet.trainers.publish(Version(0, 0))
        gaps = [await largest_gap(fleet.trainers, fleet.generators[0], fleet.samples)]
        for step in (1, 2):
            await fleet.trainers.train(TrainBatch(step=step, samples=tuple(fleet.samples)))
            gaps.append(await largest_gap(fleet.trainers, fleet.generators[0], fleet.samples))
            await fleet.trainers.publish(Version(0, step))
            gaps.append(await largest_gap(fleet.trainers, fleet.generators[0], fleet.samples))
        return gaps

    start, moved, synced, moved_again, synced_again = run(go())
    assert max(start, synced, synced_again) < 1e-4
    assert min(moved, moved_again) > 0.02, "a step did not move the student: the comparison would prove nothing"
    assert ray.get(fleet.generators[0].weight_version.remote()) == "0.2"


def test_only_the_targets_moved_and_the_base_is_what_it_was(fleet: Fleet) -> None:
    base, now = base_of(fleet.config), state(fleet)
    assert now.keys() == base.keys()
    moved = {name for name in base if np.abs(now[name] - base[name].numpy()).max() > 1e-6}
    assert moved == {name for name in base if name.split(".")[-2].endswith("_proj")}


def test_an_adapter_is_far_fewer_bytes(fleet: Fleet) -> None:
    sent = run(fleet.trainers.publish(Version(0, 3))).bytes
    whole = sum(p.numel() * 4 for p in base_of(fleet.config).values())
    assert sent < whole / 4 if fleet.config.sync.lora == "adapter" else sent >= whole


def test_checkpoints_hold_an_adapter_that_peft_loads_and_the_merged_model(fleet: Fleet, tmp_path: Path) -> None:
    from peft import PeftModel

    run(fleet.trainers.train(TrainBatch(step=3, samples=tuple(fleet.samples))))
    run(fleet.trainers.save(str(tmp_path)))
    run(fleet.trainers.written())
    sample: TrainSample = fleet.samples[0]
    ids = torch.tensor([[*sample.prompt_ids.tolist(), *sample.response_ids.tolist()]])
    plain = AutoModelForCausalLM.from_pretrained(info.resolve(fleet.config.student), dtype=torch.float32)
    merged_model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    with torch.no_grad():
        before, merged = plain(ids).logits, merged_model(ids).logits
        adapted = PeftModel.from_pretrained(plain, tmp_path / "adapter")(ids).logits
    assert float((adapted - merged).abs().max()) < 1e-4
    assert float((adapted - before).abs().max()) > 0.05
    files = list((tmp_path / "deepspeed").rglob("*.pt"))
    frozen = sum(p.numel() * 4 for p in base_of(fleet.config).values())
    assert files
    assert sum(f.stat().st_size for f in files) < frozen, "the frozen base is in DeepSpeed's state"


@pytest.mark.parametrize("fleet", ["adapter, two ranks, ZeRO 3"], indirect=True)
def test_a_newcomer_that_loads_the_last_adapter_is_the_equal_of_the_trainer(fleet: Fleet) -> None:
    run(fleet.train(3))
    copy = fleet.publish(Version(0, 3)).copy
    newcomer = start_generator(fleet.config, fleet.prepared)
    ray.get(newcomer.load_copy.remote(copy), timeout=120)
    assert run(largest_gap(fleet.trainers, newcomer, fleet.samples)) < 1e-4
    assert ray.get(newcomer.weight_version.remote()) == "0.3"
    kill([newcomer])


@pytest.mark.parametrize("fleet", ["merged"], indirect=True)
def test_after_many_syncs_the_generator_has_a_fresh_merge(fleet: Fleet) -> None:
    """W + s B A is computed from W each time: nothing piles up."""

    async def go() -> float:
        for number in range(4, 4 + SYNCS):
            await fleet.trainers.train(TrainBatch(step=number, samples=tuple(fleet.samples[:2])))
            await fleet.trainers.publish(Version(0, number))
        return await largest_gap(fleet.trainers, fleet.generators[0], fleet.samples)

    before = state(fleet)
    assert run(go()) < 1e-4
    after, base = state(fleet), base_of(fleet.config)
    assert max(float(np.abs(after[name] - before[name]).max()) for name in base) > 0.01
    unmoved = [name for name in base if not name.split(".")[-2].endswith("_proj")]
    assert all(np.array_equal(after[name], base[name].numpy()) for name in unmoved)
