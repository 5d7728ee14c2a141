"""A teacher on the torch engine: a Ray actor around ``renio_pipeline.models.teacher`` with the methods of a weight sync."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.cluster.kept_imports import kept_imports
from actors.cluster.visible_gpus import check_visible_gpus
from actors.packed_messages import PackedList
from renio_pipeline.stages.engine_limits import Ready
from renio_pipeline.types import Continuation, ContinuationRequest, Payload, ScoreRequest, ScorerSpec, Version

if TYPE_CHECKING:
    from actors.weight_sync.sender import HostCopy


class TorchTeacher:
    """Has the methods of ``vllm_teacher.Teacher``, and can return hidden states, which vLLM's generation engine cannot."""

    def __init__(self, spec: ScorerSpec) -> None:
        with kept_imports():
            from transformers import AutoModelForCausalLM  # noqa: F401  a large part of transformers, which Scorer needs

            from renio_pipeline.models.teacher import Scorer

        if spec.on_gpu:
            check_visible_gpus()
        self._scorer = Scorer(spec)
        self._busy_seconds = 0.0

    def ready(self) -> Ready:
        """Returns when the model is loaded. Only this one process receives weights."""
        return Ready()

    def ping(self) -> int:
        """This process's id. Called in the concurrency group ``CONTROL``, so it answers while a batch is scored."""
        return os.getpid()

    def busy_seconds(self) -> float:
        return self._busy_seconds

    def score(self, requests: list[ScoreRequest]) -> tuple[list[np.ndarray], dict[int, Payload]]:
        """Two results, so that the payload stays in the object store: see ``actors.engines.vllm_teacher.Teacher.score``."""
        started = time.perf_counter()
        try:
            return self._scorer.score(requests)
        finally:
            self._busy_seconds += time.perf_counter() - started

    def write(self, requests: list[ContinuationRequest]) -> list[Continuation]:
        """See ``actors.engines.vllm_teacher.Teacher.write``. Slower than that, and nothing is scored meanwhile."""
        started = time.perf_counter()
        try:
            return PackedList(self._scorer.write(requests))
        finally:
            self._busy_seconds += time.perf_counter() - started

    def cancel_all(self) -> None:
        """Nothing to do: the actor runs one call at a time, so earlier work has finished when this runs."""

    def weight_version(self) -> str:
        return str(self._scorer.version)

    def start_weight_update(self) -> None:
        """Start an update, and forget an earlier one that was not finished."""
        self._missing = {name for name, _ in self._scorer.model.named_parameters()}

    def update_weights(self, update_info: dict[str, Any]) -> float:
        """Load one chunk. Returns the seconds spent fetching it. Raises TimeoutError if it did not arrive in time."""
        import ray

        from actors.weight_sync.chunked_arrays import join_arrays
        from actors.weight_sync.wire import tensors

        started = time.perf_counter()
        pieces = ray.get(update_info["ref"], timeout=update_info["seconds"])
        fetched = time.perf_counter() - started
        self._scorer.load(tensors(update_info, join_arrays(pieces, update_info["pieces"])))
        self._missing -= set(update_info["names"])
        return fetched

    def finish_weight_update(self, version: Version) -> None:
        """Use the new weights. Raises RuntimeError if a parameter did not receive its new value."""
        if self._missing:
            raise RuntimeError(f"the weight update did not reach {sorted(self._missing)[:5]}")
        self._scorer.version = Version(*version)

    def load_copy(self, copy: HostCopy) -> None:
        """Load the weights that the other replicas were sent last: see ``VllmReplica.load_copy``."""
        if copy.kind != "weights":
            raise ValueError("a torch teacher cannot load an adapter without its base weights")
        self.start_weight_update()
        for chunk in copy.chunks:
            self.update_weights(chunk)
        self.finish_weight_update(copy.version)
