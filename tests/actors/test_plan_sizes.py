"""What a model's configuration says of its sizes, against the model itself, and the memory that follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.weight_sync import factory
from renio_pipeline.config import ConfigError, RunConfig, parse
from renio_pipeline.config.schema import Lora, Trainer
from renio_pipeline.models import teacher
from renio_pipeline.planning import memory, rank_memory
from renio_pipeline.planning.devices import DEVICES, GIB
from renio_pipeline.planning.lengths import Lengths
from renio_pipeline.planning.model_configs import model_config, released
from renio_pipeline.planning.sizes import sizes_of
from renio_pipeline.stages.engine_limits import EngineLimits
from tests.unit.conftest import DEMO, make_config, values

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 300,
}
# Of the models' cards, https://huggingface.co/Qwen/Qwen3-8B and beside it: parameters, and those that are no embedding.
PUBLISHED = {
    "0.6B": (0.6, 0.44),
    "1.7B": (1.7, 1.4),
    "4B": (4.0, 3.6),
    "8B": (8.2, 6.95),
    "14B": (14.8, 13.2),
    "32B": (32.8, 31.2),
}


def on_meta(config: dict[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))


@pytest.mark.parametrize(
    "config",
    [
        {**SMALL, "model_type": "qwen3", "tie_word_embeddings": True},
        {**SMALL, "model_type": "qwen3", "tie_word_embeddings": False, "attention_bias": True},
        {**SMALL, "model_type": "llama", "attention_bias": True, "mlp_bias": True},
        {**SMALL, "model_type": "mistral"},
        {k: v for k, v in SMALL.items() if k != "head_dim"} | {"model_type": "qwen2", "tie_word_embeddings": True},
        released()["Qwen/Qwen3-1.7B"],
        released()["Qwen/Qwen3-8B"],
        json.loads((DEMO / "student/config.json").read_text()),
    ],
    ids=lambda c: f"{c['model_type']}-{c['hidden_size']}",
)
def test_a_dense_models_parameters_are_those_of_the_model_that_transformers_builds(config: dict[str, Any]) -> None:
    found, model = sizes_of("m", config), on_meta(config)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.keys == model.model.layers[0].self_attn.k_proj.out_features
    assert found.queries == model.model.layers[0].self_attn.q_proj.out_features
    embedding = model.get_input_embeddings().weight
    tied = model.get_output_embeddings().weight is embedding
    assert found.passed == found.matrices == found.parameters - (0 if tied else embedding.numel())


@pytest.mark.parametrize("name", PUBLISHED)
def test_released_models_have_the_parameters_that_their_cards_say(name: str) -> None:
    found, (total, without) = sizes_of(name, released()[f"Qwen/Qwen3-{name}"]), PUBLISHED[name]
    digits = len(str(without).partition(".")[2])
    tables = found.head if found.passed == found.parameters else 2 * found.head
    assert round(found.parameters / 1e9, 1) == total
    assert round((found.parameters - tables) / 1e9, digits) == pytest.approx(without, abs=0.011)


def test_experts_count_whole_in_memory_and_by_their_share_in_arithmetic() -> None:
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "model_type": "qwen3_moe"}
    found = sizes_of("m", {**SMALL, **experts})
    counts = {path: p.numel() for path, p in on_meta({**SMALL, **experts}).named_parameters()}
    of_experts = sum(n for path, n in counts.items() if ".experts." in path)
    assert of_experts == 3 * 8 * 3 * 64 * 48
    assert found.parameters == sum(counts.values())
    assert found.matrices - found.passed == of_experts * 3 // 4
    assert found.mlp == 2 * 48


def test_a_cached_token_has_keys_and_values_of_every_layer_and_no_more_than_a_heads_on_each_gpu() -> None:
    model = sizes_of("m", released()["Qwen/Qwen3-8B"])
    assert model.cache_bytes(2) == 2 * 36 * 8 * 128 * 2
    assert model.cache_bytes(2, tensor_parallel=4) == model.cache_bytes(2) / 4
    assert model.cache_bytes(2, tensor_parallel=16) == model.cache_bytes(2) / 8


def test_factors_are_those_that_lora_puts_beside_the_model() -> None:
    from actors.trainer.lora import add_factors

    config = {**SMALL, "model_type": "qwen3"}
    lm, lora = on_meta(config), Lora(r=8, targets=("q_proj", "v_proj", "o_proj", "down_proj"))
    add_factors(lm, lora, 0)
    assert sizes_of("m", config).factors(lora.targets, lora.r) == sum(p.numel() for p in lm.parameters() if p.requires_grad)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_what_autograd_keeps(checkpointing: bool) -> None:
    kept = {n: _saved(n, checkpointing) for n in (2, 4)}
    trainer = Trainer(gradient_checkpointing=checkpointing)
    sizes = {n: sizes_of("m", {**SMALL, "model_type": "qwen3", "num_hidden_layers": n}) for n in kept}
    expected = rank_memory.activations(trainer, sizes[4], 128) - rank_memory.activations(trainer, sizes[2], 128)
    assert kept[4] - kept[2] == pytest.approx(expected, rel=0.03)


def _saved(layers: int, checkpointing: bool) -> int:
    """Bytes that a forward pass of 128 tokens keeps, parameters left out."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**{**SMALL, "model_type": "qwen3", "num_hidden_layers": layers})
    lm = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).train()
    if checkpointing:
        lm.gradient_checkpointing_enable({"use_reentrant": False})
    own = {p.untyped_storage().data_ptr() for p in lm.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        lm.model(input_ids=torch.zeros(1, 128, dtype=torch.long), use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


EIGHT = sizes_of("eight", released()["Qwen/Qwen3-8B"])


@pytest.mark.parametrize(("stage", "each"), [(0, 2 + 2 + 12), (1, 2 + 2 + 12 / 4), (2, 2 + 2 / 4 + 12 / 4), (3, 16 / 4)])
def test_model_states_shrink_with_the_zero_stage_as_in_its_paper(stage: Any, each: float) -> None:
    states = rank_memory.model_states(Trainer(zero_stage=stage), EIGHT, 4)
    assert sum(states.values()) == pytest.approx(each * EIGHT.parameters)


def test_with_lora_only_factors_have_gradients_and_moments() -> None:
    lora = Lora(r=64)
    states = rank_memory.model_states(Trainer(zero_stage=0, lora=lora), EIGHT, 1)
    factors = EIGHT.factors(lora.targets, 64)
    assert states == {"weights": 2 * (EIGHT.parameters + factors), "gradients": 2 * factors, "optimizer": 12 * factors}


def rank(config: RunConfig, ranks: int = 2) -> memory.Use:
    return rank_memory.trainer_rank(config, EIGHT, [EIGHT], DEVICES["h100"], ranks, 1280.0, 0.7)


def test_what_makes_a_rank_smaller_makes_it_smaller() -> None:
    plain = rank(make_config(trainer={"zero_stage": 1}))
    assert rank(make_config(trainer={"zero_stage": 1, "gradient_checkpointing": True})).total < plain.total
    assert rank(make_config(trainer={"zero_stage": 1, "micro_batch_tokens": 4096})).total < plain.total
    assert rank(make_config(trainer={"zero_stage": 3})).total < rank(make_config(trainer={"zero_stage": 2})).total
    assert rank(make_config(trainer={"zero_stage": 1}), 8).total < plain.total
    assert rank(make_config(trainer={"zero_stage": 0}), 8).parts == rank(make_config(trainer={"zero_stage": 0})).parts
    assert not plain.fits  # 8 B parameters, their gradients and half of their moments


def of_generator(tensor_parallel: int = 1, **options: Any) -> memory.Engine:
    config = make_config(generator={"engine": options, "tensor_parallel": tensor_parallel})
    lengths = Lengths.log_normal(512, 1024, "given")
    return memory.engine(
        config.generator,
        EIGHT,
        DEVICES["h100"],
        prompt=256,
        lengths=lengths,
        context=1500,
        limits=EngineLimits(sequences=256, batched_tokens=16384),
    )


def test_a_generator_caches_what_its_share_of_the_gpu_leaves() -> None:
    found = of_generator(gpu_memory_utilization=0.5)
    taken = found.use.total - 1500 * EIGHT.cache_bytes(2)
    assert found.cache_tokens == pytest.approx((0.5 * DEVICES["h100"].memory - taken) / EIGHT.cache_bytes(2))
    assert found.fits
    assert found.cache_tokens < of_generator(gpu_memory_utilization=0.9).cache_tokens
    assert of_generator(kv_cache_dtype="fp8").cache_tokens == pytest.approx(2 * of_generator().cache_tokens)
    assert of_generator(tensor_parallel=2).sequences > 2 * of_generator().sequences
    assert not of_generator(gpu_memory_utilization=0.2).fits


def test_a_devices_memory_is_a_little_below_its_name() -> None:
    for name, gigabytes in {"a100": 80, "h100": 80, "h200": 141, "l4": 24, "l40s": 48}.items():
        assert 0.9 * gigabytes * GIB < DEVICES[name].memory < gigabytes * GIB


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("{}/none", "student: '{}/none' has no config.json"),
        ("{}/list", "student: {}/list/config.json is not a model configuration"),
        ("{}/torn", "student: {}/torn/config.json cannot be read"),
        ("Some/Model", "student: 'Some/Model' is not in the hub's cache, and --offline forbids the network; give a folder"),
    ],
)
def test_a_model_without_a_configuration_is_named_with_what_would_help(tmp_path: Path, name: str, says: str) -> None:
    for folder, text in {"list": "[]", "torn": "{"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(text)
    with pytest.raises(ConfigError) as raised:
        model_config(name.format(tmp_path), "student", offline=True)
    assert str(raised.value).startswith(says.format(tmp_path))


def test_a_configuration_of_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"m: its config.json has no 'hidden_size'"):
        sizes_of("m", {"model_type": "resnet"})
    with pytest.raises(ConfigError, match="m: transformers cannot build the model"):
        sizes_of("m", {**SMALL, "model_type": "no-such-model"})


def test_a_weight_sync_takes_memory_outside_of_the_engines_share() -> None:
    pools = {"generator": {"gpus": 1}, "trainer": {"gpus": 1}}
    config = make_config(pools=pools, sync={"backend": "nccl"}, generator={"engine": {"gpu_memory_utilization": 0.98}})
    taken = memory.transfer(config, EIGHT)
    assert 2 * EIGHT.head * 2 < taken < 4 * GIB
    assert memory.transfer(make_config(), EIGHT) == 0  # through the host: straight into the weights
    limits = EngineLimits(sequences=256, batched_tokens=8192)
    given = {"limits": limits, "prompt": 256, "lengths": None, "context": 1500}
    with_sync = memory.engine(config.generator, EIGHT, DEVICES["h100"], **given, transfer=taken)
    assert with_sync.use.limit == pytest.approx(DEVICES["h100"].memory - taken)


def test_a_teacher_that_averages_the_student_takes_four_bytes_a_parameter_of_the_ranks() -> None:
    method = {"type": "opsd", "teacher": "ema"}
    average = rank(parse(values(method=method, teacher={})), 4).parts["teacher's average"]
    assert average == EIGHT.parameters


def test_the_plan_knows_what_the_torch_teacher_and_a_transfer_take_at_a_time() -> None:
    """Written twice, because a plan does without torch."""
    assert teacher.UNMASKED_TOKENS["cuda"] == memory.PACKED_ROW
    assert factory.PACKED_BYTES == memory.PACKED_BYTES


def test_full_fine_tuning_of_eight_billion_parameters_does_not_fit_on_two_ranks_of_80_gb() -> None:
    """Even with as few activations as can be: the optimizer's step alone casts 16 GB of gradients to fp32."""
    small = {"zero_stage": 2, "gradient_checkpointing": True, "micro_batch_tokens": 2048}
    config = make_config(trainer=small, pools={"trainer": {"gpus": 1}})
    two, eight = rank(config, 2), rank(config, 8)
    assert not two.fits
    assert two.total > DEVICES["h100"].memory
    assert two.parts["optimizer's step"] == pytest.approx(6 * EIGHT.parameters / 2)
    assert eight.fits


def test_an_unfused_update_takes_square_roots_of_its_own() -> None:
    trainer = Trainer(zero_stage=3)
    fused, apart = (rank_memory.optimizer_step(trainer, EIGHT, 16, fused=fused) for fused in (True, False))
    assert apart - fused == pytest.approx(2 * EIGHT.parameters / 16)
    assert rank_memory.optimizer_step(trainer, EIGHT, 1, fused=True) == 6 * rank_memory.SUB_GROUP  # not the whole partition


@pytest.mark.parametrize("context", [1500, 16384])
def test_a_teacher_makes_the_logits_of_a_chunk_at_a_time_however_long_its_context_is(context: int) -> None:
    config = make_config(teacher={"model": "m"})
    limits = EngineLimits(sequences=1024, batched_tokens=16384)
    found = memory.engine(
        config.teacher, EIGHT, DEVICES["h100"], limits=limits, prompt=context, lengths=None, context=context, prompt_logits=True
    )
    assert found.fits
    assert found.use.parts["logits"] == 3 * 1024 * EIGHT.vocab * 4


@pytest.mark.parametrize(
    ("given", "elements"), [({}, 5e8), ({"reduce_bucket_size": 1e6}, 1e6), ({"reduce_bucket_size": "auto"}, 5e8)]
)
def test_deepspeeds_bucket_is_what_its_options_say(given: dict[str, Any], elements: float) -> None:
    config = make_config(trainer={"zero_stage": 2, "deepspeed": {"zero_optimization": given}})
    assert rank(config).parts["bucket"] == 2 * elements
