"""The student's forward pass by itself, as a trainer rank computes it: without DeepSpeed, an optimizer or a gradient."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from actors.cluster.visible_gpus import check_visible_gpus
from actors.trainer.micro_batches import fetch_payloads
from renio_pipeline.config.schema import Trainer
from renio_pipeline.objectives import Objective
from renio_pipeline.stages.engine_limits import Ready
from renio_pipeline.types import TrainSample


class ForwardOnly:
    """Holds the whole student on one device, in the trainer's precision and with its attention."""

    def __init__(self, model: str, trainer: Trainer, on_gpu: bool) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from renio_pipeline.models import packed_attention
        from renio_pipeline.models.self_checks import check_head, check_packing
        from renio_pipeline.models.student import TokenLogits

        if on_gpu:
            check_visible_gpus()
        self._packing, self._device = trainer.packing, torch.device("cuda" if on_gpu else "cpu")
        lm = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, trainer.dtype)).to(self._device)
        self._model = TokenLogits(lm).train()  # as the trainer's; dropout is off
        check_head(self._model, self._device)
        if trainer.packing:
            packed_attention.use(lm)
            check_packing(self._model, self._device)

    def ready(self) -> Ready:
        return Ready(receivers=0)

    def ping(self) -> int:
        """This process's id. In a concurrency group of its own, so that it answers while a batch is being computed."""
        return os.getpid()

    def losses(
        self, micro_batches: list[list[TrainSample]], objective: Objective, temperature: float, vocab_size: int
    ) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """See ``renio_pipeline.models.student.token_losses``."""
        from renio_pipeline.models.student import token_losses

        settings: dict[str, Any] = {"objective": objective, "temperature": temperature, "vocab_size": vocab_size}
        settings |= {"device": self._device, "packing": self._packing}
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for samples in micro_batches:
            found |= token_losses(self._model, samples, fetch_payloads(samples), **settings)
        return found
