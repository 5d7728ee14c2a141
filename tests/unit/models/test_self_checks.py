"""The trainer's checks of a loaded model: correct ones of real depth and precision pass, and what breaks it is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from renio_pipeline.models import packed_attention
from renio_pipeline.models.files import unknown_scale
from renio_pipeline.models.self_checks import check_head, check_packing, check_teacher
from renio_pipeline.models.student import TokenLogits
from renio_pipeline.models.tolerance import relative_error

CPU = torch.device("cpu")
ROWS = 44
SIZES = {"vocab_size": ROWS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


def qwen3() -> Any:
    return Qwen3ForCausalLM(Qwen3Config(**SIZES, **HEADS, tie_word_embeddings=False, initializer_range=0.4))


def gemma2(**options: Any) -> Any:
    """Layers with a sliding window, and attention with a soft cap."""
    return Gemma2ForCausalLM(Gemma2Config(**SIZES, **HEADS, initializer_range=0.4, sliding_window=4, **options))


def granite(scaling: float = 1.0) -> Any:
    sizes = {key: value for key, value in SIZES.items() if key != "head_dim"}
    config = GraniteConfig(**sizes, **HEADS, logits_scaling=scaling, initializer_range=0.4, pad_token_id=0)
    return GraniteForCausalLM(config)


def mamba(layers: int = 2) -> Any:
    return MambaForCausalLM(MambaConfig(vocab_size=ROWS, hidden_size=16, state_size=4, num_hidden_layers=layers))


def bloom(layers: int = 2) -> Any:
    return BloomForCausalLM(BloomConfig(vocab_size=ROWS, hidden_size=16, n_layer=layers, n_head=2, initializer_range=0.4))


def wrapped(make: Callable[[], Any], dtype: torch.dtype = torch.float32) -> TokenLogits:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TokenLogits(make().to(dtype))


def deep(layers: int) -> Any:
    """As deep as real models, with logits that spread as theirs do (a standard deviation of about 3)."""
    config = Qwen3Config(
        vocab_size=4096,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    return Qwen3ForCausalLM(config)


def eager_one_by_one(
    query: Tensor, key: Tensor, value: Tensor, cumulated: Tensor, scale: float | None, window: int | None
) -> Tensor:
    """Correct attention of each packed sequence to itself, in another arithmetic than sdpa: scores are rounded to the dtype."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    lengths = cumulated.diff().tolist()
    parts = []
    for q, k, v in zip(*(x.transpose(0, 1).split(lengths, dim=1) for x in (query, key, value)), strict=True):
        scores = (q @ k.transpose(1, 2)) * (scale or q.shape[-1] ** -0.5)
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        weights = scores.masked_fill(~seen, -torch.inf).float().softmax(-1).to(v.dtype)
        parts.append((weights @ v).transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("layers", [16, 28, 36])
def test_two_correct_attention_kernels_pass_in_bfloat16_at_the_depth_of_real_models(
    layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = wrapped(lambda: deep(layers), torch.bfloat16)
    packed_attention.use(model.lm)
    assert packed_attention.used_by(model.lm)
    check_packing(model, CPU)
    monkeypatch.setattr(packed_attention, "_one_by_one", eager_one_by_one)
    ids, positions = torch.arange(8)[None], torch.arange(4)
    with torch.no_grad():
        alone = model(ids[:, 4:], None, positions).float()
        packed = model(ids, torch.cat([positions, positions])[None], positions + 4).float()
    entries, allowed = (alone - packed).abs().max(), 1e-2 * alone.abs().max()
    assert entries > allowed, "the kernels agree so well that this test shows nothing"
    check_packing(model, CPU)
    check_head(model, CPU)


@PRECISIONS
@pytest.mark.parametrize("make", [qwen3, gemma2, granite])
def test_transformers_keep_packed_sequences_apart(make: Callable[[], Any], dtype: torch.dtype) -> None:
    check_packing(wrapped(make, dtype), CPU)


@PRECISIONS
@pytest.mark.parametrize("layers", [2, 28])
@pytest.mark.parametrize("make", [mamba, bloom], ids=["recurrent", "without positions"])
def test_an_architecture_that_mixes_packed_sequences_is_refused(
    make: Callable[[int], Any], layers: int, dtype: torch.dtype
) -> None:
    model = wrapped(lambda: make(layers), dtype)
    with pytest.raises(ValueError, match=f"{type(model.lm).__name__} mixes sequences.*set trainer.packing to false"):
        check_packing(model, CPU)


@PRECISIONS
def test_a_head_that_caps_its_logits_is_followed(dtype: torch.dtype) -> None:
    model = wrapped(lambda: gemma2(final_logit_softcapping=0.5), dtype)
    check_head(model, CPU)
    model.lm.config.final_logit_softcapping = None
    uncapped = model(torch.ones(1, 1).long(), None, torch.tensor([0]))
    assert uncapped.abs().max().item() > 0.5


@PRECISIONS
def test_a_head_that_scales_its_logits_is_followed(dtype: torch.dtype) -> None:
    check_head(wrapped(lambda: granite(4.0), dtype), CPU)


@PRECISIONS
@pytest.mark.parametrize("factor", [2.0, 0.97])
def test_a_head_that_changes_its_logits_in_its_own_way_is_refused(factor: float, dtype: torch.dtype) -> None:
    class OwnWay(GraniteForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            found = super().forward(*args, **kwargs)
            found.logits = found.logits * factor
            return found

    model = wrapped(granite, dtype)
    model.lm.__class__ = OwnWay
    with pytest.raises(ValueError, match="OwnWay scales its logits in a way that this trainer does not support"):
        check_head(model, CPU)


def test_a_value_that_is_not_a_number_never_passes() -> None:
    values = torch.ones(3)
    assert relative_error(values, values) == 0 == relative_error(torch.zeros(3), torch.zeros(3))
    assert not relative_error(torch.tensor([1.0, torch.nan, 1.0]), values) <= 1e9


def own_scale() -> Any:
    """A Granite whose logits are multiplied, as HyperCLOVA X's are, by what Granite divides by."""

    class Multiplied(GraniteForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            found = super().forward(*args, **kwargs)
            found.logits = found.logits * self.config.logits_scaling**2
            return found

    lm = granite(4.0)
    lm.__class__ = Multiplied
    return lm


@PRECISIONS
@pytest.mark.parametrize("make", [qwen3, gemma2, lambda: granite(4.0), lambda: gemma2(final_logit_softcapping=0.5)])
def test_a_torch_teacher_of_a_known_kind_passes(make: Callable[[], Any], dtype: torch.dtype) -> None:
    check_teacher(wrapped(make, dtype).lm.eval(), CPU)


@PRECISIONS
@pytest.mark.parametrize(
    ("make", "says"), [(own_scale, "Multiplied scales its logits"), (mamba, "Mamba.* mixes"), (bloom, "Bloom.* mixes")]
)
def test_a_torch_teacher_that_would_score_wrongly_is_refused(make: Callable[[], Any], says: str, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=rf"teacher\.model: {says}.*; set teacher\.type=vllm"):
        check_teacher(wrapped(make, dtype).lm.eval(), CPU)


@pytest.mark.parametrize(("model_type", "key"), [("falcon_h1", "lm_head_multiplier"), ("hyperclovax", "logits_scaling")])
def test_a_scale_that_is_not_known_is_seen_in_the_configuration(model_type: str, key: str) -> None:
    assert unknown_scale({"model_type": model_type, key: 0.25}) == key
    assert unknown_scale({"model_type": model_type, key: 1.0}) is None
    assert unknown_scale({"model_type": "granite", "logits_scaling": 4.0}) is None
