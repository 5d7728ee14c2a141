"""The methods of a worker that vLLM's engine and the replica call by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.kv_cache_layout import KVCacheLayout
from vllm.v1.worker.worker_base import CompilationTimes

from actors.engines.vllm_extension import RenioWorker
from tests.async_engine.device import Device

BLOCK = 8  # tokens of a block of the KV cache
BLOCKS = 512  # of the KV cache, unless a test wants fewer
BATCH_SECONDS = 0.0005
HALVES = ("first", "second")  # names of the two weights


class StubWorker(RenioWorker):
    """Weight verbs arrive by the real ``renio_try`` and change the device's weights at once, whatever it computes."""

    def __init__(self) -> None:
        self.device = Device(BATCH_SECONDS)
        self.fails: dict[str, Exception] = {}  # name of a verb: what it raises
        self._received: set[int] = set()  # halves, in this update

    def get_kv_cache_spec(self) -> dict[str, FullAttentionSpec]:
        return {"layer": FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=8, dtype=torch.float32)}

    def get_supported_kv_cache_layouts(self) -> list[str]:
        return [layout.name for layout in KVCacheLayout]

    def set_kv_cache_layout(self, name: str) -> None:
        """It has no layout."""

    def determine_available_memory(self) -> int:
        return 2**26  # enough: the number of blocks is given to the engine

    def initialize_from_config(self, configs: Any) -> None:
        """The device's KV cache grows as it is written."""

    def compile_or_warm_up_model(self) -> CompilationTimes:
        return CompilationTimes(language_model=0.0, encoder=0.0)

    def get_supported_tasks(self) -> tuple[str, ...]:
        return ("generate",)

    def reset_mm_cache(self) -> None:
        """Text alone."""

    def reset_encoder_cache(self) -> None:
        """Text alone."""

    def synchronize_device(self) -> None:
        self.device.synchronize()

    def sleep(self, level: int) -> None:
        assert level == 1
        self.device.asleep = True
        self.device.drop_cache()

    def wake_up(self, tags: list[str] | None) -> None:
        self.device.asleep = False

    def renio_configure(self, temperature: float, vocab_size: int) -> None:
        """It has no logits."""

    def renio_start_update(self) -> None:
        self._may_fail("renio_start_update")
        self._received = set()

    def update_weights(self, chunk: dict[str, Any]) -> None:
        self._may_fail("update_weights")
        assert not self.device.asleep, "the weights are not there to be changed"
        for name, array in zip(chunk["names"], chunk["arrays"], strict=True):
            half = HALVES.index(name)
            self.device.weights[half] = int(array.view(np.int32)[0])
            self._received.add(half)

    def renio_verify_loaded(self) -> None:
        if len(self._received) < len(HALVES):
            raise RuntimeError(f"the weight update did not reach {len(HALVES) - len(self._received)} layers")

    def finish_weight_update(self) -> None:
        self._may_fail("finish_weight_update")

    def renio_repack(self) -> None:
        """Nothing is packed."""

    def _may_fail(self, verb: str) -> None:
        if verb in self.fails:
            raise self.fails[verb]
