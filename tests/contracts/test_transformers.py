"""What is undocumented in transformers and peft: attention by name, masks, heads, names of factors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contracts.conftest import STUDENT
from tests.contracts.reliance import parameters, relied_on


@pytest.fixture(scope="module")
def lm() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(STUDENT, dtype=torch.float32).eval()


@relied_on(
    "transformers",
    "renio_pipeline.models.packed_attention.use",
    "renio_pipeline.models.packed_attention.states",
    breaks="packed sequences would see each other, or packed attention never be used",
)
def test_attention_of_our_own_is_chosen_by_name_and_gets_bounds_and_mask_as_they_were_given(lm: Any) -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    seen: list[dict[str, Any]] = []

    def attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        seen.append(options | {"mask": mask, "causal": module.is_causal, "heads": (query.dim(), query.shape[2])})
        return sdpa_attention_forward(module, query, key, value, None, is_causal=True)

    AttentionInterface.register("contract", attention)
    AttentionMaskInterface.register("contract", sdpa_mask)
    assert lm.config.get_text_config()._attn_implementation == "sdpa"
    lm.set_attn_implementation("contract")
    try:
        assert lm.config.get_text_config()._attn_implementation == "contract"
        mask, bounds = torch.zeros(1, 1, 1, 1, dtype=torch.bool), torch.tensor([0, 2, 5], dtype=torch.int32)
        with torch.no_grad():
            lm.base_model(
                input_ids=torch.arange(5)[None],
                position_ids=torch.tensor([[0, 1, 0, 1, 2]]),
                use_cache=False,
                attention_mask=mask,
                cu_seq_lens_q=bounds,
                max_length_q=3,
            )
    finally:
        lm.set_attn_implementation("sdpa")
    assert len(seen) == lm.config.num_hidden_layers
    assert all(each["mask"] is mask and each["cu_seq_lens_q"] is bounds and each["max_length_q"] == 3 for each in seen)
    assert all(each["causal"] and each["heads"] == (4, 5) for each in seen)  # [b, heads, L, D]
    assert {"scaling", "dropout"} <= seen[0].keys()


@relied_on(
    "transformers",
    "renio_pipeline.models.packed_attention.attention",
    breaks="a layer could ask for what our attention does not know, under a name that we do not refuse",
)
def test_sdpa_knows_no_option_that_we_have_not_heard_of() -> None:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    known = {"dropout", "scaling", "is_causal", "position_bias", "cache", "kwargs"}
    assert list(parameters(sdpa_attention_forward))[:5] == ["module", "query", "key", "value", "attention_mask"]
    assert parameters(sdpa_attention_forward).keys() - {"module", "query", "key", "value", "attention_mask"} == known


@relied_on(
    "transformers",
    "renio_pipeline.models.teacher.Scorer",
    "renio_pipeline.models.student.collate",
    breaks="without our own attention, packed sequences would see each other",
)
def test_positions_that_begin_anew_keep_sequences_apart_without_a_mask(lm: Any) -> None:
    ids, positions = torch.arange(1, 8)[None], torch.tensor([[0, 1, 2, 0, 1, 2, 3]])
    with torch.no_grad():
        packed = lm.base_model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state[:, 3:]
        alone = lm.base_model(input_ids=ids[:, 3:], use_cache=False).last_hidden_state
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "key", "changes"),
    [
        ("Cohere", "logit_scale", {"logit_scale": 0.5}),
        ("Granite", "logits_scaling", {"logits_scaling": 2.0}),
        ("Gemma2", "final_logit_softcapping", {"final_logit_softcapping": 3.0}),
    ],
)
@relied_on(
    "transformers",
    "renio_pipeline.models.heads.logit_settings",
    "renio_pipeline.models.student.TokenLogits.forward",
    breaks="logits of this family would be scaled or capped otherwise than its model does",
)
def test_logits_are_scaled_and_capped_by_these_keys(model: str, key: str, changes: dict[str, float]) -> None:
    import transformers

    from renio_pipeline.models.heads import logit_settings

    sizes = {
        "vocab_size": 16,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    config = getattr(transformers, f"{model}Config")(**sizes | changes)
    lm = getattr(transformers, f"{model}ForCausalLM")(config).eval()
    assert getattr(config, key) == changes[key]
    ids = torch.arange(4)[None]
    with torch.no_grad():
        states = lm.base_model(input_ids=ids, use_cache=False).last_hidden_state
        scale, cap = logit_settings(lm.config.get_text_config())
        logits = lm.get_output_embeddings()(states)
        found = (logits if cap is None else torch.tanh(logits / cap) * cap) * scale
        torch.testing.assert_close(found, lm(input_ids=ids, use_cache=False).logits)


@relied_on(
    "transformers", "renio_pipeline.models.heads._read", breaks="a model in one file would be an error instead of being read"
)
def test_a_file_that_a_model_has_not_is_none() -> None:
    from transformers.utils import cached_file

    missing = cached_file(STUDENT, "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False)
    assert missing is None
    found = cached_file(STUDENT, "model.safetensors", _raise_exceptions_for_missing_entries=False)
    assert found is not None
    assert Path(found).is_file()


@relied_on(
    "peft",
    "actors.trainer.lora.merged",
    "actors.trainer.lora.peft_name",
    "actors.trainer.lora.scale_of",
    breaks="merged weights would lack their factors or have them at another scale, or the adapter's files other names",
)
def test_a_module_s_weights_come_before_its_factors_under_these_names(tmp_path: Path) -> None:
    from peft import PeftModel, get_peft_model_state_dict, inject_adapter_in_model
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from actors.trainer.lora import _peft_config, peft_name, save_adapter, scale_of
    from renio_pipeline.config.schema import Lora

    lora = Lora(r=4, alpha=6, targets=("up_proj",))
    lm = AutoModelForCausalLM.from_pretrained(STUDENT, dtype=torch.float32).requires_grad_(False)
    inject_adapter_in_model(_peft_config(lora), lm)
    module = "model.layers.0.mlp.up_proj"
    parts = ("base_layer", "lora_A.default", "lora_B.default")
    assert [name for name, _ in lm.named_parameters() if name.startswith(f"{module}.")] == [
        f"{module}.{p}.weight" for p in parts
    ]
    trained = {name: p.detach() for name, p in lm.named_parameters() if p.requires_grad}
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)

    layer, states = lm.get_submodule(module), torch.randn(2, lm.config.hidden_size)
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    whole = layer.base_layer.weight + scale_of(lora) * b @ a
    torch.testing.assert_close(layer(states), states @ whole.T, rtol=1e-4, atol=1e-4)

    save_adapter({peft_name(name): p for name, p in trained.items()}, lora, STUDENT, str(tmp_path / "adapter"))
    stock = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(STUDENT, dtype=torch.float32), tmp_path / "adapter")
    assert get_peft_model_state_dict(stock).keys() == load_file(tmp_path / "adapter/adapter_model.safetensors").keys()
    torch.testing.assert_close(stock.base_model.model.get_submodule(module)(states), layer(states))
