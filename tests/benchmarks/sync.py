"""What a weight sync costs over a `memcpy` of the same bytes: `make bench`. Medians with their spread, a table and JSON.

The trainer's side is real (`DeepSpeedSource`, `HostSender`) over made-up weights of a model's shapes. The receivers are Ray
actors of one node that only read. Their engines' own load, which is no part of the ratio, is measured on real vLLM engines.

CPU-seconds are compared, because on two cores the processes disturb each other's clocks. Floors are measured between the
sends, in the trainer's process, over the same bytes: ``warm`` copies into memory that was written before, ``fresh`` into
shared memory that was not, as the first sync of a run has to.
"""

from __future__ import annotations

import argparse
import json
import mmap
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM

from actors.trainer.weight_source import DeepSpeedSource
from actors.weight_sync.client import SyncClient
from actors.weight_sync.host_sender import CHUNK_BYTES, HostSender
from actors.weight_sync.sender import SyncReceipt
from renio_pipeline.models import info
from renio_pipeline.types import Version
from tests.benchmarks.engine_load import measure_load
from tests.ray.reading_receiver import Reading, ReadingReceiver, checksum

ROOT = Path(__file__).parents[2]
WARM_UP = 3  # sends: the store hands out memory that was not written before until as much as two models was
PAUSE = 1.3  # seconds between sends, as a training step would be: Ray frees what nobody holds once a second
BIG = {"hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 64}
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "30 M": {
        "hidden_size": 384, "intermediate_size": 1152, "num_hidden_layers": 9, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 32_768,
    },
    "1 GB": BIG | {"num_hidden_layers": 16, "vocab_size": 65_536},
    "1 GB in bf16": BIG | {"num_hidden_layers": 32, "vocab_size": 131_072},
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    name: str
    shapes: str
    held: torch.dtype  # in the trainer
    sent: torch.dtype


CASES = [
    Case("tiny, float32", "tiny", torch.float32, torch.float32),
    Case("30 M, float32", "30 M", torch.float32, torch.float32),
    Case("1 GB, float32", "1 GB", torch.float32, torch.float32),
    Case("1 GB, bfloat16", "1 GB in bf16", torch.bfloat16, torch.bfloat16),
    Case("1 GB in float32, sent as bfloat16", "1 GB", torch.float32, torch.bfloat16),
]
ENGINES = ["tiny", "30 M"]


def made_up(shapes: str, dtype: torch.dtype) -> torch.nn.Module:
    """A model of the student's family with random weights."""
    student = AutoConfig.from_pretrained(info.resolve("embedded:student"))
    config = type(student)(**(student.to_dict() | {"layer_types": None} | SHAPES[shapes]))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.to_empty(device="cpu")
    model.tie_weights()
    for parameter in model.parameters():
        parameter.data.uniform_(-0.05, 0.05)
    return model


class Floors:
    """Copies of a source's bytes, tensor by tensor."""

    def __init__(self, source: Any) -> None:
        self._from = [t.reshape(-1).view(torch.uint8).numpy() for _, t in source]
        self.bytes = sum(map(len, self._from))
        self._to = [np.zeros_like(a) for a in self._from]
        self.warm()

    def warm(self) -> None:
        for to, array in zip(self._to, self._from, strict=True):
            np.copyto(to, array)

    def fresh(self) -> None:
        with mmap.mmap(-1, self.bytes) as shared:
            flat = np.frombuffer(shared, np.uint8)
            at = 0
            for array in self._from:
                np.copyto(flat[at : at + len(array)], array)
                at += len(array)
            del flat


def timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}, result


def raylet_cpu() -> float:
    """CPU-seconds so far of the node's object store and scheduler, the one process of Ray's that a sync keeps busy."""
    raylets = [p for p in psutil.Process().children(recursive=True) if p.name() == "raylet"]
    return sum(sum(p.cpu_times()[:2]) for p in raylets)


def sends(case: Case, receivers: list[Any], model: torch.nn.Module, rounds: int) -> Iterator[dict[str, Any]]:
    """One line a send, floors beside it."""
    floors = Floors(DeepSpeedSource(model, dtype=case.sent))
    expected = checksum([t.reshape(-1).view(torch.uint8).numpy() for _, t in DeepSpeedSource(model, dtype=case.sent)])
    source = DeepSpeedSource(model, dtype=None)
    sender = HostSender(source, SyncClient(receivers, [1] * len(receivers), seconds=300), rank=0, dtype=case.sent)
    copy: Any = None
    for number in range(WARM_UP + rounds):
        copy = None  # as the pools do: not two models' bytes
        time.sleep(PAUSE)
        line: dict[str, Any] = {"warm": timed(floors.warm)[0], "fresh": timed(floors.fresh)[0]}
        before = raylet_cpu()
        line["send"], receipt = timed(partial(sender.send, Version(0, number)))
        line["raylet_cpu"] = raylet_cpu() - before
        copy = receipt.copy
        readings: list[Reading] = ray.get([r.reading.remote() for r in receivers])
        assert receipt.bytes == floors.bytes
        assert all(r.checksum == expected for r in readings), "a receiver read something else"
        yield line | figures_of(receipt, readings)
    assert copy is not None


def figures_of(receipt: SyncReceipt, readings: list[Reading]) -> dict[str, Any]:
    return {
        "bytes": receipt.bytes, "publish_seconds": receipt.publish_seconds, "fetch_seconds": receipt.receive_seconds,
        "receive_cpu": sorted(r.receive_cpu for r in readings), "read_cpu": [r.read_cpu for r in readings],
        "private_bytes": max(r.private_bytes for r in readings), "zero_copy": all(r.shared for r in readings),
    }  # fmt: skip


def measure(case: Case, rounds: int, count: int) -> dict[str, Any]:
    """A case to one receiver, then to ``count``: what the others add is the difference."""
    model = made_up(case.shapes, case.held)
    result: dict[str, Any] = {"parameters": sum(1 for _ in model.named_parameters())}
    for receivers in (1, count):
        actors = [ray.remote(ReadingReceiver).options(num_cpus=0).remote() for _ in range(receivers)]
        ray.get([a.start_weight_update.remote() for a in actors])
        lines = list(sends(case, actors, model, rounds))
        for actor in actors:
            ray.kill(actor)
        result["1 receiver" if receivers == 1 else f"{receivers} receivers"] = summary(lines)
    return result


def engine(shapes: str, rounds: int) -> dict[str, Any]:
    model = made_up(shapes, torch.float32)
    loads = measure_load(model, rounds)
    tensors = sum(1 for _ in model.named_parameters())
    return {"parameters": tensors, "1 generator": {key: spread(values) for key, values in loads.items()}}


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Ratios are of figures of the same round; the first send of the process is apart."""
    steady = lines[WARM_UP:]
    return {
        "bytes": lines[0]["bytes"],
        "memcpy warm, CPU-s": spread([x["warm"]["cpu"] for x in steady]),
        "memcpy fresh shared, CPU-s": spread([x["fresh"]["cpu"] for x in steady]),
        "trainer CPU-s": spread([x["send"]["cpu"] for x in steady]),
        "receivers CPU-s, all": spread([sum(x["receive_cpu"]) for x in steady]),
        "raylet CPU-s": spread([x["raylet_cpu"] for x in steady]),
        "publish, wall s": spread([x["publish_seconds"] for x in steady]),
        "fetch, wall s": spread([x["fetch_seconds"] for x in steady]),
        "memcpy warm, wall s": spread([x["warm"]["seconds"] for x in steady]),
        "publish and receive over memcpy, CPU": spread([cost(x) / x["warm"]["cpu"] for x in steady]),
        "publish and fetch over memcpy, wall": spread(
            [(x["publish_seconds"] + x["fetch_seconds"]) / x["warm"]["seconds"] for x in steady]
        ),
        "first send over fresh memcpy, CPU": cost(lines[0]) / statistics.median(x["fresh"]["cpu"] for x in steady),
        "private bytes, worst": max(x["private_bytes"] for x in steady),
        "zero-copy": all(x["zero_copy"] for x in lines),
    }


def cost(line: dict[str, Any]) -> float:
    """CPU-seconds of the trainer and of all receivers, before an engine would load."""
    return line["send"]["cpu"] + sum(line["receive_cpu"])


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--receivers", type=int, default=4)
    parser.add_argument("--only", default="", help="cases whose name has this")
    parser.add_argument("--json", type=Path, default=ROOT / "runs/bench-sync.json")
    args = parser.parse_args()
    torch.set_num_threads(1)  # as a rank with one core has; more threads wait for each other by spinning
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=5 * 2**30,
        namespace="renio",
        include_dashboard=False,
        log_to_driver=False,
    )
    report: dict[str, Any] = {"chunk_bytes": CHUNK_BYTES}
    for case in CASES:
        if args.only in case.name:
            report[case.name] = measure(case, args.rounds, args.receivers)
            show(case.name, report[case.name])
    for shapes in ENGINES:
        if args.only in (name := f"{shapes}, a vLLM engine"):
            report[name] = engine(shapes, args.rounds)
            show(name, report[name])
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=1) + "\n")


def show(name: str, result: dict[str, Any]) -> None:
    columns = [key for key in result if key != "parameters"]
    table = Table("figure", *columns, title=f"{name}: {result['parameters']} tensors")
    for figure in result[columns[0]]:
        table.add_row(figure, *(cell(result[column][figure]) for column in columns))
    Console(width=120).print(table)


def cell(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['median']:.4g} ({value['min']:.4g} to {value['max']:.4g})"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if not isinstance(value, bool) else str(value)


if __name__ == "__main__":
    main()
