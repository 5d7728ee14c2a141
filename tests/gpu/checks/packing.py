"""The student's output head, and sequences packed in one row, in bfloat16 at full depth."""

from __future__ import annotations

import time
from typing import Any

from tests.gpu import models
from tests.gpu.check import Figure, Figures
from tests.gpu.memory import gib, peak
from tests.gpu.settings import Settings, Sizes

MIXED = 5e-2  # relative: what packed rows may differ by in half precision


def main(settings: Settings) -> Figures:
    return _check(settings, settings.main)


def large(settings: Settings) -> Figures:
    return _check(settings, settings.large)


def _check(settings: Settings, sizes: Sizes) -> Figures:
    import torch

    from renio_pipeline.models import packed_attention
    from renio_pipeline.models.self_checks import check_head, check_packing
    from renio_pipeline.models.student import TokenLogits

    device = torch.device(settings.device)
    model = TokenLogits(models.build(settings, sizes, "bfloat16"))
    check_head(model, device)
    with peak(settings) as used, torch.no_grad():
        yield Figure("logits of chosen positions, relative gap", _head_gap(settings, model), most=1e-2)
        packed_attention.use(model.lm)
        assert packed_attention.used_by(model.lm), "packed attention does not agree with sdpa on this device, and is not used"
        started = time.perf_counter()
        yield Figure("packed rows, relative gap", _packed_gap(settings, model), most=MIXED)
        yield Figure("time of that", time.perf_counter() - started, "s")
        check_packing(model, device)
        yield Figure("rows that mix, relative gap", _mixed_gap(settings, model, device), least=MIXED)
    if used.extra is not None:
        yield Figure("peak memory beyond the weights", gib(used.extra), "GiB")


def _head_gap(settings: Settings, model: Any) -> float:
    """Of logits made at a few positions, to those that the model makes itself."""
    import torch

    ids = torch.as_tensor(models.ids(settings, 16, 1), device=settings.device).long()[None]
    found = model(ids, None, torch.arange(16, device=settings.device)).float()
    wanted = model.lm(input_ids=ids, use_cache=False).logits[0].float()
    return float((found - wanted).norm() / wanted.norm())


def _packed_gap(settings: Settings, model: Any) -> float:
    """Of each sequence's logits in a shared row, to those that it has in a row of its own."""
    import torch

    device = settings.device
    ids = torch.as_tensor(models.ids(settings, sum(settings.lengths), 2), device=device).long()[None]
    positions = torch.cat([torch.arange(n, device=device) for n in settings.lengths])[None]
    chosen = torch.cat(
        [torch.arange(n, device=device)[-8:] + sum(settings.lengths[:i]) for i, n in enumerate(settings.lengths)]
    )
    packed = model(ids, positions, chosen).float()
    alone = []
    for part in ids[0].split(list(settings.lengths)):
        alone.append(model(part[None], None, torch.arange(len(part), device=device)[-8:]).float())
    wanted = torch.cat(alone)
    return float((packed - wanted).norm() / wanted.norm())


def _mixed_gap(settings: Settings, model: Any, device: Any) -> float:
    """The same where sequences do see each other, which check_packing must notice."""
    from renio_pipeline.models import packed_attention
    from renio_pipeline.models.self_checks import check_packing

    usual = packed_attention.bounds

    def one_sequence(position_ids: Any) -> dict[str, Any]:
        import torch

        count = position_ids.numel()
        ends = torch.tensor([0, count], device=position_ids.device, dtype=torch.int32)
        return usual(position_ids) | {"cu_seq_lens_q": ends, "max_length_q": count}

    packed_attention.bounds = one_sequence
    try:
        check_packing(model, device)
    except ValueError:
        return _packed_gap(settings, model)
    finally:
        packed_attention.bounds = usual
    raise AssertionError("check_packing passes rows whose sequences see each other")
