"""Causal attention for sequences packed end to end in rows, each attending only to itself, without an [L, L] mask.

On a GPU in half precision, one variable-length flash-attention kernel does it; elsewhere, torch's causal attention runs
sequence by sequence. Shapes: b rows of L tokens, D dimensions per head.
"""

from __future__ import annotations

import inspect
import itertools
import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from renio_pipeline.models.quiet import without_warnings
from renio_pipeline.models.tolerance import HALF, relative_error

NAME = "packed_sdpa"


def use(lm: Any) -> None:
    """Replace a transformers model's sdpa attention by this one, if packed sequences then get the same states as with sdpa.

    Architectures with their own attention, soft caps, sinks or anything else unsupported here keep their attention.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    config = lm.config.get_text_config()
    if config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    ids = torch.arange(1, 9, device=lm.device)[None] % config.vocab_size
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4]], device=lm.device)
    with torch.no_grad():
        try:
            masked = states(lm, ids, positions)
            with without_warnings():  # an architecture that keeps its own attention warns of it
                lm.set_attn_implementation(NAME)
            error = relative_error(states(lm, ids, positions), masked)
        except (NotImplementedError, TypeError, ValueError, RuntimeError):
            error = math.inf
    if not error < (5e-2 if lm.dtype in HALF else 1e-4):
        lm.set_attn_implementation("sdpa")


def used_by(lm: Any) -> bool:
    """Whether the model uses this attention."""
    return bool(lm.config.get_text_config()._attn_implementation == NAME)


def states(lm: Any, input_ids: Tensor, position_ids: Tensor | None) -> Tensor:
    """The last hidden states, [b, L, H].

    Args:
        input_ids: [b, L].
        position_ids: [b, L], restarting at 0 with each sequence of a row; None if every row is one sequence.
    """
    where: dict[str, Any] = {}
    if position_ids is not None:
        where["position_ids"] = position_ids
        if used_by(lm):
            # transformers passes a four-dimensional mask through unchanged; otherwise it would build one of [b, 1, L, L]
            where |= bounds(position_ids) | {"attention_mask": position_ids.new_zeros(1, 1, 1, 1, dtype=torch.bool)}
    return lm.base_model(input_ids=input_ids, use_cache=False, **where).last_hidden_state


def bounds(position_ids: Tensor) -> dict[str, Any]:
    """The start of each sequence in the flattened b·L tokens and the end, int32, by the names that transformers passes on.

    Args:
        position_ids: [b, L], restarting at 0 with each sequence.
    """
    flat = position_ids.flatten()
    begins = (flat == 0).nonzero()[:, 0]
    cumulated = torch.cat([begins, begins.new_tensor([len(flat)])]).int()
    return {"cu_seq_lens_q": cumulated, "max_length_q": int(flat.max()) + 1}


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The attention function that is registered with transformers. Without ``bounds`` it is sdpa.

    Args:
        query: [b, heads, L, D].
        key, value: [b, kv heads, L, D].
        cu_seq_lens_q, max_length_q: see ``bounds``.

    Returns:
        [b, L, heads, D], and None in place of the attention weights.

    Raises:
        NotImplementedError: the layer asks for more than a scale and a sliding window.
    """
    if cu_seq_lens_q is None or max_length_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    asked = [name for name in ("softcap", "s_aux", "position_bias", "cache") if options.get(name) is not None]
    if asked or options.get("dropout") or options.get("is_causal") is False or not getattr(module, "is_causal", True):
        raise NotImplementedError(f"packed attention does not support {asked or 'dropout or non-causal attention'}")
    window = options.get("sliding_window")
    window = None if window is None or window >= max_length_q else window  # how many tokens a token sees, including itself
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
    needed = {"query"} if window is None else {"window_size"}
    if query.is_cuda and query.dtype in HALF and needed <= _options():
        found = _by_kernel(q, k, v, cu_seq_lens_q, max_length_q, options.get("scaling"), window)
    else:
        found = _one_by_one(q, k, v, cu_seq_lens_q, options.get("scaling"), window)
    return found.unflatten(0, (query.shape[0], query.shape[2])), None


@cache
def _options() -> frozenset[str]:
    """The arguments of this torch version's flash kernel for packed sequences; added in 2.10 and extended later."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return frozenset()
    return frozenset(inspect.signature(varlen_attn).parameters)


def _by_kernel(
    query: Tensor, key: Tensor, value: Tensor, cumulated: Tensor, longest: int, scale: float | None, window: int | None
) -> Tensor:
    """Query, key, value and result: [b·L, heads, D]."""
    from torch.nn.attention.varlen import varlen_attn

    past = -1 if window is None else window - 1
    options: dict[str, Any] = {"window_size": (past, 0)} if "window_size" in _options() else {"is_causal": True}
    if scale is not None and scale != query.shape[-1] ** -0.5:
        options["scale"] = scale
    if "enable_gqa" in _options():
        options["enable_gqa"] = True
    elif (groups := query.shape[1] // key.shape[1]) > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    return varlen_attn(query, key, value, cumulated, cumulated, longest, longest, **options)  # type: ignore[return-value]


def _one_by_one(
    query: Tensor, key: Tensor, value: Tensor, cumulated: Tensor, scale: float | None, window: int | None
) -> Tensor:
    lengths = [end - start for start, end in itertools.pairwise(cumulated.tolist())]
    parts = []
    for q, k, v in zip(*(x.split(lengths) for x in (query, key, value)), strict=True):
        mask = None
        if window is not None and len(q) > window:
            mask = torch.ones(len(q), len(q), dtype=torch.bool, device=q.device).tril().triu(1 - window)
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        found = scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=scale, enable_gqa=True)
        parts.append(found[0].transpose(0, 1))
    return torch.cat(parts)
