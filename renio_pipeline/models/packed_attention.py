"""Causal attention among sequences that lie end to end in rows, each to itself, without a mask: that costs a row's square.

On a GPU one variable-length flash kernel does it in half precision, elsewhere torch's causal attention sequence by sequence.
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

from renio_pipeline.models.tolerance import HALF, relative_error

NAME = "packed_sdpa"


def use(lm: Any) -> None:
    """Give a transformers model this attention in sdpa's place, if with it packed sequences have the states that sdpa gives.

    Some architectures bring their own attention, or soft caps, sinks and whatever else is not known here: they keep theirs.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    config = lm.config.get_text_config()
    if config._attn_implementation != "sdpa" or getattr(config, "attention_dropout", 0.0):
        return
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    ids = torch.arange(1, 9, device=lm.device)[None] % config.vocab_size
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4]], device=lm.device)
    with torch.no_grad():
        try:
            masked = states(lm, ids, positions)
            lm.set_attn_implementation(NAME)
            error = relative_error(states(lm, ids, positions), masked)
        except (NotImplementedError, TypeError, ValueError, RuntimeError):
            error = math.inf
    if not error < (5e-2 if lm.dtype in HALF else 1e-4):
        lm.set_attn_implementation("sdpa")


def used_by(lm: Any) -> bool:
    return bool(lm.config.get_text_config()._attn_implementation == NAME)


def states(lm: Any, input_ids: Tensor, position_ids: Tensor | None) -> Tensor:
    """[b, L, H] last hidden states. position_ids [b, L] begin anew with each sequence of a row; None: a sequence a row."""
    where: dict[str, Any] = {}
    if position_ids is not None:
        where["position_ids"] = position_ids
        if used_by(lm):
            # transformers pass a mask of four dimensions on as it is, where they would make one of [b, 1, L, L]
            where |= bounds(position_ids) | {"attention_mask": position_ids.new_zeros(1, 1, 1, 1, dtype=torch.bool)}
    return lm.base_model(input_ids=input_ids, use_cache=False, **where).last_hidden_state


def bounds(position_ids: Tensor) -> dict[str, Any]:
    """Where each sequence begins in b·L, and the end: int32, under the names that transformers hands on to attention."""
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
    """[b, heads, L, D] query, [b, kv heads, L, D] key and value -> [b, L, heads, D].

    Without `bounds` it is sdpa. Raises NotImplementedError for what a layer asks besides a scale and a sliding window.
    """
    if cu_seq_lens_q is None or max_length_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    asked = [name for name in ("softcap", "s_aux", "position_bias", "cache") if options.get(name) is not None]
    if asked or options.get("dropout") or options.get("is_causal") is False or not getattr(module, "is_causal", True):
        raise NotImplementedError(f"packed attention knows no {asked or 'dropout, or sight of later tokens'}")
    window = options.get("sliding_window")
    window = None if window is None or window >= max_length_q else window  # how many a token sees, itself included
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
    needed = {"query"} if window is None else {"window_size"}
    if query.is_cuda and query.dtype in HALF and needed <= _options():
        found = _by_kernel(q, k, v, cu_seq_lens_q, max_length_q, options.get("scaling"), window)
    else:
        found = _one_by_one(q, k, v, cu_seq_lens_q, options.get("scaling"), window)
    return found.unflatten(0, (query.shape[0], query.shape[2])), None


@cache
def _options() -> frozenset[str]:
    """What this torch's flash kernel takes for packed sequences; it came with 2.10, and learned more after."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return frozenset()
    return frozenset(inspect.signature(varlen_attn).parameters)


def _by_kernel(
    query: Tensor, key: Tensor, value: Tensor, cumulated: Tensor, longest: int, scale: float | None, window: int | None
) -> Tensor:
    """[b·L, heads, D], all of them."""
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
