"""LoRA factors and what is sent of them. A small model in this process, no engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from actors.trainer.lora import AdapterSource, MergedSource, add_factors, is_factor, merged, save_adapter
from renio_pipeline.config import ConfigError
from renio_pipeline.config.schema import Lora
from renio_pipeline.models import info
from tests.unit.conftest import make_config

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORA = Lora(r=4, alpha=8, targets=ALL)


def factored(lora: Lora = LORA, dtype: torch.dtype = torch.float32, std: float = 0.05) -> Any:
    lm = AutoModelForCausalLM.from_pretrained(info.resolve("embedded:student"), dtype=dtype)
    add_factors(lm, lora, seed=0)
    torch.manual_seed(1)
    for name, p in lm.named_parameters():
        if is_factor(name):
            torch.nn.init.normal_(p, std=std)
    return lm


def plain(dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(info.resolve("embedded:student"), dtype=dtype)


def test_at_the_start_the_factors_change_nothing_and_they_alone_are_trained() -> None:
    lm, ids = plain(), torch.arange(20)[None]
    expected = lm(ids).logits
    add_factors(lm, LORA, seed=0)
    assert torch.equal(lm(ids).logits, expected)
    trained = [name for name, p in lm.named_parameters() if p.requires_grad]
    layers = lm.config.num_hidden_layers
    assert all(map(is_factor, trained))
    assert len(trained) == 2 * len(ALL) * layers


def test_the_seed_makes_the_factors_the_same_on_every_rank() -> None:
    def start(seed: int) -> dict[str, torch.Tensor]:
        lm = plain()
        torch.rand(seed + 1)  # ranks may have drawn differently before
        add_factors(lm, LORA, seed=7)
        return {name: p for name, p in lm.named_parameters() if is_factor(name)}

    one, two = start(0), start(1)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("targets", [ALL, ("q_proj", "down_proj")], ids=["all", "two"])
def test_merged_weights_are_the_plain_models_and_give_the_same_logits(targets: tuple[str, ...]) -> None:
    lora, ids = Lora(r=3, alpha=9, targets=targets), torch.arange(20)[None]
    lm = factored(lora).requires_grad_(False)
    source = MergedSource(lm, lora, dtype=torch.float32)
    sent = dict(source)
    other = plain().requires_grad_(False)
    assert list(sent) == [m.name for m in source.metadata()] == [name for name, _ in other.named_parameters()]
    assert [tuple(t.shape) for t in sent.values()] == [m.shape for m in source.metadata()]
    before = other(ids).logits
    other.load_state_dict(sent, strict=False)
    assert float((other(ids).logits - lm(ids).logits).abs().max()) < 1e-4
    assert float((before - lm(ids).logits).abs().max()) > 0.1


def test_merging_is_done_in_fp32_and_cast_once() -> None:
    lm = factored(dtype=torch.bfloat16)
    parts = {name: p.detach().double() for name, p in lm.named_parameters()}
    compared = 0
    for name, tensor in MergedSource(lm, LORA, dtype=torch.bfloat16):
        module = name.removesuffix(".weight")
        if f"{module}.base_layer.weight" in parts:
            w, a, b = (parts[f"{module}.{p}.weight"] for p in ("base_layer", "lora_A.default", "lora_B.default"))
            compared += 1
            exact = w + 2.0 * b @ a
            nearest = exact.float().bfloat16()
            assert float((tensor == nearest).double().mean()) > 0.999, name  # ties may fall either way in fp32
            assert bool(((tensor.double() - exact).abs() <= 1.01 * (nearest.double() - exact).abs() + 1e-8).all()), name
    assert compared == len(ALL) * lm.config.num_hidden_layers


def test_in_bf16_an_adapter_carries_an_update_that_merged_weights_round_away() -> None:
    lm = factored(dtype=torch.bfloat16, std=1e-4)
    base = dict(plain(torch.bfloat16).named_parameters())
    sent = dict(MergedSource(lm, LORA, dtype=torch.bfloat16))
    unchanged = sum(int((sent[name] == base[name]).sum()) for name in base)
    assert unchanged / sum(t.numel() for t in base.values()) > 0.99
    before = {name: t.clone() for name, t in AdapterSource(lm, dtype=torch.bfloat16)}
    for name, p in lm.named_parameters():
        if is_factor(name):
            p.data += 2e-6 * torch.sign(p.data)  # a step as small as a learning rate, on factors near 1e-4
    after = dict(AdapterSource(lm, dtype=torch.bfloat16))
    assert len(after) == 2 * len(ALL) * lm.config.num_hidden_layers
    changed = sum(int((after[name] != before[name]).sum()) for name in after)
    assert changed / sum(t.numel() for t in after.values()) > 0.5
    again = dict(MergedSource(lm, LORA, dtype=torch.bfloat16))
    assert sum(int((again[name] != sent[name]).sum()) for name in sent) / sum(t.numel() for t in sent.values()) < 0.01


def test_an_adapter_loads_in_stock_peft(tmp_path: Path) -> None:
    from peft import PeftModel

    lm, ids = factored(), torch.arange(20)[None]
    save_adapter(dict(AdapterSource(lm, dtype=None)), LORA, "some/model", str(tmp_path / "adapter"))
    loaded = PeftModel.from_pretrained(plain(), tmp_path / "adapter")
    assert torch.equal(loaded(ids).logits, lm(ids).logits)
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 8, "some/model")


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.floats(0.1, 8), st.booleans())
def test_any_order_of_modules_merges_to_what_the_equation_says(o: int, i: int, r: int, scale: float, bias: bool) -> None:
    torch.manual_seed(o * 100 + i * 10 + r)
    pairs, expected = [], {}
    for name in ("a.q", "a.k"):
        w, a, b = torch.randn(o, i), torch.randn(r, i), torch.randn(o, r)
        pairs += [(f"{name}.base_layer.weight", w)] + [(f"{name}.base_layer.bias", w[:, 0])] * bias
        pairs += [(f"{name}.lora_A.default.weight", a), (f"{name}.lora_B.default.weight", b)]
        expected[f"{name}.weight"] = (w.double() + scale * b.double() @ a.double()).float()
    pairs.append(("a.norm.weight", torch.ones(3)))
    found = dict(merged(pairs, scale, torch.float32))
    assert found.keys() == expected.keys() | {"a.norm.weight"} | ({"a.q.bias", "a.k.bias"} if bias else set())
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5)


def test_a_module_without_its_second_factor_is_an_error() -> None:
    pairs = [("a.q.base_layer.weight", torch.ones(2, 2)), ("a.q.lora_A.default.weight", torch.ones(1, 2))]
    with pytest.raises(AssertionError, match="factors without their module"):
        dict(merged(pairs, 1.0, torch.float32))


def test_a_target_that_matches_nothing_is_told_which_modules_there_are() -> None:
    info.check_lora_targets("embedded:student", ALL)
    with pytest.raises(ConfigError) as caught:
        info.check_lora_targets("embedded:student", ("q_proj", "query_key_value"))
    assert "trainer.lora.targets: 'query_key_value' matches no linear module" in str(caught.value)
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in str(caught.value)
    with pytest.raises(ConfigError, match=r"'lm_head' matches no linear module of .* below its output head"):
        info.check_lora_targets("embedded:teacher", ("lm_head",))  # the exact loss needs the head whole


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sync": {"lora": "adapter"}}, "sync.lora=adapter needs trainer.lora"),
        ({"checkpoint": {"merged": True}}, "checkpoint.merged needs trainer.lora"),
        ({"trainer": {"lora": {"targets": []}}}, "trainer.lora.targets"),
        ({"trainer": {"lora": {"r": 0}}}, "trainer.lora.r"),
        ({"trainer": {"lora": {"targets": ["self_attn.q_proj"]}}}, "give the module's last name, 'q_proj'"),
        ({"trainer": {"lora": {"rank": 8}}}, "trainer.lora.rank: unknown key"),
        ({"generator": {"engine": {"enable_lora": True}}}, "generator.engine.enable_lora is set by the pipeline itself"),
        ({"trainer": {"lora": {}}, "sync": {"lora": "adapter", "backend": "nccl"},
          "pools": {"generator": {"gpus": 1}, "trainer": {"gpus": 1}}}, "sync.lora adapter needs sync.backend=host, not nccl"),
    ],
)  # fmt: skip
def test_combinations_that_cannot_work_say_why(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(**changes)
    assert expected in str(caught.value)
