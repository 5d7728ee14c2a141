"""Checks that a loaded model computes what the trainer assumes. Tensors are compared by norms: see ``tolerance``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from renio_pipeline.config import ConfigError
from renio_pipeline.models import packed_attention
from renio_pipeline.models.heads import head_of
from renio_pipeline.models.quiet import without_warnings
from renio_pipeline.models.tolerance import HALF, OTHER_KERNELS, SAME_KERNELS, relative_error

if TYPE_CHECKING:
    from renio_pipeline.models.student import TokenLogits


def check_head(model: TokenLogits, device: torch.device) -> None:
    """Compare the trainer's logits with the model's own.

    Raises:
        ConfigError: this architecture does more to its last hidden states than project them.
    """
    ids = torch.arange(4, device=device)[None]
    with torch.no_grad(), without_warnings():  # a token of these may be one that pads
        expected = model.lm(input_ids=ids, use_cache=False).logits[0]
        found = model(ids, None, torch.arange(4, device=device))
    if not relative_error(found, expected) <= SAME_KERNELS[expected.dtype in HALF]:
        raise ConfigError(f"student: {type(model.lm).__name__} scales its logits in a way that this trainer does not support")


def check_packing(model: TokenLogits, device: torch.device) -> None:
    """Compare the logits of a sequence packed behind another one with its logits in a row of its own.

    Raises:
        ConfigError: in this architecture, tokens see other sequences of the same row.
    """
    ids, positions = torch.arange(8, device=device)[None], torch.arange(4, device=device)
    with torch.no_grad(), without_warnings():
        alone = model(ids[:, 4:], None, positions)
        try:
            packed = model(ids, torch.cat([positions, positions])[None], positions + 4)
        except TypeError:  # it takes no positions
            packed = torch.full_like(alone, torch.nan)
    error, bound = relative_error(packed, alone), OTHER_KERNELS[alone.dtype in HALF]
    if not error <= bound:
        raise ConfigError(
            f"student: {type(model.lm).__name__} mixes sequences that are packed in one row (their logits differ from those "
            f"of the same sequence alone by {error:.2g} of the norm; kernels explain {bound:g}); set trainer.packing to "
            "false, so that each sequence has its own row"
        )


def check_teacher(lm: Any, device: torch.device | str) -> None:
    """Compare the logits that a torch teacher computes with the model's own.

    Raises:
        ConfigError: the model's logits are not those of its last hidden states and output head, or sequences packed in one row
            see each other.
    """
    ids, positions = torch.arange(8, device=device)[None], torch.arange(4, device=device)
    head, kind = head_of(lm), type(lm).__name__
    with torch.no_grad(), without_warnings():
        expected = lm(input_ids=ids[:, 4:], use_cache=False).logits[0]
        alone = packed_attention.states(lm, ids[:, 4:], None)[0]
        logits = alone.to(head.weight.dtype) @ head.weight.T
        logits = (logits if head.bias is None else logits + head.bias).float()
        logits = head.scale * (logits if head.soft_cap is None else torch.tanh(logits / head.soft_cap) * head.soft_cap)
        try:
            packed = packed_attention.states(lm, ids, torch.cat([positions, positions])[None])[0, 4:]
        except TypeError:  # it takes no positions
            packed = torch.full_like(alone, torch.nan)
    bound = OTHER_KERNELS[expected.dtype in HALF]
    if not relative_error(logits, expected) <= bound:
        raise ConfigError(
            f"teacher.model: {kind} scales its logits in a way that the torch engine does not support; set teacher.type=vllm"
        )
    if not relative_error(packed, alone) <= bound:
        raise ConfigError(f"teacher.model: {kind} mixes sequences that are packed in one row; set teacher.type=vllm")
