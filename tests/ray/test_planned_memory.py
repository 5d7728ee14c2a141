"""`renio plan`'s memory of a trainer rank, term by term, against what a real DeepSpeed engine allocates."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from actors.cluster.placement import actor_options
from actors.trainer.deepspeed_engine import build
from actors.trainer.messages import RankSpec
from renio_pipeline.config.schema import Trainer
from renio_pipeline.planning import rank_memory
from renio_pipeline.planning.sizes import sizes_of
from tests.ray.conftest import demo, kill
from tests.ray.live_bytes import LiveBytes

SIZES = {
    "model_type": "qwen3",
    "vocab_size": 2048,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "tie_word_embeddings": False,
}
SMALL_BUCKET = {"zero_optimization": {"reduce_bucket_size": 1000}}  # of which a rank has one whole, however small the model


@ray.remote
class Rank:
    """A process with an engine, one after another, as a trainer rank builds it."""

    def measure(self, folder: str, trainer: Trainer, kind: str) -> tuple[int, int]:
        """Bytes before the third optimizer's step, gradients and all, and what that step adds at its peak."""
        import deepspeed  # noqa: F401  subclasses AdamW as it is imported
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            os.environ["MASTER_PORT"] = str(free.getsockname()[1])
        os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        already = LiveBytes().before  # Ray may start an actor in a process in which other tests' tasks ran
        if not os.path.exists(folder):
            AutoModelForCausalLM.from_config(AutoConfig.for_model(**SIZES)).save_pretrained(folder)
        made = torch.optim.AdamW
        chosen = {"fused": kind == "fused", "foreach": kind == "foreach"}
        torch.optim.AdamW = lambda *args, **options: made(*args, **options | chosen)
        try:
            engine: Any = build(RankSpec(model=folder, trainer=trainer, steps=10, seed=0), 1)
        finally:
            torch.optim.AdamW = made
        found = (0, 0)
        for _ in range(3):
            logits = engine(torch.arange(32)[None], None, torch.arange(32))
            engine.backward(logits.float().logsumexp(-1).mean(), scale_wrt_gas=False)
            del logits
            with LiveBytes() as counted:
                engine.step()
            found = (counted.before - already, counted.peak - counted.before)
        engine.destroy()
        return found


def start() -> Any:
    return Rank.options(**actor_options(demo()[0], "trainer")).remote()


@pytest.fixture(scope="module")
def shared(ray_cluster: None) -> Iterator[Any]:
    started = start()
    yield started
    kill([started])


@pytest.fixture
def rank(stage: int, shared: Any) -> Iterator[Any]:
    """A process of its own at stage 3, of which DeepSpeed lets nothing go."""
    if stage < 3:
        yield shared
        return
    started = start()
    yield started
    kill([started])


@pytest.mark.parametrize(
    ("stage", "dtype", "kind"),
    [
        (0, "bfloat16", "fused"),
        (0, "float32", "foreach"),
        (1, "bfloat16", "fused"),
        (2, "bfloat16", "fused"),
        (2, "bfloat16", "foreach"),
        (2, "float32", "fused"),
        (3, "bfloat16", "fused"),
        (3, "bfloat16", "foreach"),
    ],
)
def test_model_states_and_the_optimizers_step_take_what_is_planned(
    stage: Any, dtype: Any, kind: str, rank: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    trainer = Trainer(zero_stage=stage, dtype=dtype, packing=False, deepspeed=SMALL_BUCKET)
    folder = tmp_path_factory.getbasetemp() / "planned"
    states, added = ray.get(rank.measure.remote(str(folder), trainer, kind))
    model = sizes_of("m", SIZES)
    assert states == pytest.approx(sum(rank_memory.model_states(trainer, model, 1).values()), rel=0.01)
    expected = rank_memory.optimizer_step(trainer, model, 1, fused=kind == "fused")
    assert added == pytest.approx(expected, rel=0.01)
