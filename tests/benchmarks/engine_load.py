"""What a real vLLM engine takes to load weights that a sync has brought: listed apart from the sync, whose cost it is not.

On a CPU, vLLM packs every linear layer anew for its matrix products; that is most of it.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch

from actors.cluster.placement import actor_options
from actors.engines.generator import Generator
from actors.engines.specs import generator_spec
from actors.trainer.weight_source import DeepSpeedSource
from actors.weight_sync.client import SyncClient, ask_actor
from actors.weight_sync.host_sender import HostSender
from renio_pipeline.config import load
from renio_pipeline.models import info
from renio_pipeline.preflight import prepare
from renio_pipeline.types import Version

ROOT = Path(__file__).parents[2]
Rounds = list[dict[str, float]]


class Stopwatch:
    """Asks an actor, and notes how long each verb took to be answered."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def ask(self, actor: Any, verb: str, *arguments: Any) -> Future[Any]:
        started = time.perf_counter()
        answer = ask_actor(actor, verb, *arguments)
        answer.add_done_callback(lambda _: self._note(verb, time.perf_counter() - started))
        return answer

    def _note(self, verb: str, seconds: float) -> None:
        self.seconds[verb] = self.seconds.get(verb, 0.0) + seconds


def measure_load(model: Any, rounds: int) -> dict[str, list[float]]:
    """Seconds of each send to one float32 generator on this node; the first two sends are left out."""
    lines: Rounds = []
    with tempfile.TemporaryDirectory() as folder:
        actor = _start(model, folder)
        ray.get(actor.ready.remote())
        for number in range(2 + rounds):
            watch = Stopwatch()
            client = SyncClient([actor], [1], seconds=300, ask=watch.ask)
            sender = HostSender(DeepSpeedSource(model, dtype=None), client, rank=0, dtype=torch.float32)
            receipt = sender.send(Version(0, number + 1))
            lines.append(
                {
                    "publish, wall s": receipt.publish_seconds,
                    "fetch, wall s": receipt.receive_seconds,
                    "hold the engine, wall s": watch.seconds["start_weight_update"],
                    "engine's load, wall s": watch.seconds["update_weights"] - receipt.receive_seconds,
                    "check, last layers and tied head, wall s": watch.seconds["finish_weight_update"],
                }
            )
        ray.kill(actor)
    return {key: [line[key] for line in lines[2:]] for key in lines[0]}


def _start(model: Any, folder: str) -> Any:
    """A generator that serves the model as a checkpoint, with the demo student's tokenizer."""
    model.save_pretrained(folder)
    for file in Path(info.resolve("embedded:student")).iterdir():
        if not file.name.startswith(("config", "model")):
            shutil.copy(file, folder)
    config = load(ROOT / "configs/demo.yaml", ["data.problems=64", "evaluate.problems=32"])
    spec = replace(generator_spec(config, prepare(config)), model=folder)
    return ray.remote(Generator).options(**actor_options(config, "generator", uses_vllm=True)).remote(spec)
