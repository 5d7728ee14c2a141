"""Adapters of teachers: added as peft adds them, and refused by name where an engine could not serve them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from renio_pipeline.config import ConfigError
from renio_pipeline.models import info
from renio_pipeline.models.adapters import Adapter, buffer_rank, read_adapter
from renio_pipeline.models.teacher import Scorer
from renio_pipeline.preflight import prepare
from renio_pipeline.types import ScoreRequest, ScorerSpec
from tests.unit.conftest import make_config

TEACHER = info.resolve("embedded:teacher")


def base() -> Any:
    return AutoModelForCausalLM.from_pretrained(TEACHER, dtype=torch.float32)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    get_peft_model(base(), config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def edited(folder: Path, **changes: Any) -> str:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    return str(folder)


def test_a_torch_teacher_scores_with_its_adapter_as_peft_does(adapter: Path) -> None:
    request = ScoreRequest(sample_id=0, prompt_ids=np.arange(5, dtype=np.int32), response_ids=np.arange(7, 12, dtype=np.int32))
    model = PeftModel.from_pretrained(base(), adapter)
    with torch.no_grad():
        logits = model(torch.arange(12)[None, [*range(5), *range(7, 12)]]).logits[0, 4:-1]
    expected = torch.log_softmax(logits, -1).gather(1, torch.arange(7, 12)[:, None])[:, 0].numpy()
    spec = ScorerSpec(
        model=TEACHER, dtype="float32", temperature=1.0, vocab_size=logits.shape[-1], kind="sampled", adapter=str(adapter)
    )
    np.testing.assert_allclose(Scorer(spec).score([request])[0][0], expected, atol=1e-5)
    plain = ScorerSpec(model=TEACHER, dtype="float32", temperature=1.0, vocab_size=logits.shape[-1], kind="sampled")
    assert np.abs(Scorer(plain).score([request])[0][0] - expected).max() > 0.1


def test_its_rank_is_read_and_gets_the_next_larger_buffer(adapter: Path) -> None:
    assert read_adapter(str(adapter), "teacher.adapter") == Adapter(folder=str(adapter), rank=4, targets=("q_proj", "up_proj"))
    assert [buffer_rank(r) for r in (1, 4, 8, 9, 257, 512)] == [1, 8, 8, 16, 320, 512]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "is a PREFIX_TUNING adapter; only LoRA can be served"),
        ({"use_dora": True}, "has DoRA's magnitudes (use_dora)"),
        ({"modules_to_save": ["lm_head"]}, "has whole modules (modules_to_save)"),
        ({"bias": "all"}, "trains biases"),
        ({"r": 1000}, "has rank 1000; allowed: 1 to 512"),
    ],
)
def test_an_adapter_that_no_engine_can_serve_is_refused(adapter: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_adapter(edited(adapter, **changes), "teacher.adapter")
    assert str(error.value).startswith("teacher.adapter: ")
    assert told in str(error.value)


def test_a_folder_that_has_none_is_refused_before_anything_loads(adapter: Path, tmp_path: Path) -> None:
    for folder, told in ((tmp_path, f"did you mean '{adapter}'"), (tmp_path / "no", "there is no folder")):
        with pytest.raises(ConfigError, match=f"teacher.adapter: .*{told}"):
            prepare(make_config(teacher={"model": "embedded:teacher", "adapter": str(folder)}))
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"has no adapter_model\.safetensors"):
        prepare(make_config(teacher={"model": "embedded:teacher", "adapter": str(adapter)}))


def test_a_teacher_that_follows_the_student_has_no_adapter(adapter: Path) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.adapter: method\.teacher ema gets the student's weights"):
        make_config(method={"type": "opsd", "teacher": "ema", "decay": 0.9}, teacher={"model": None, "adapter": str(adapter)})


def test_an_adapter_of_the_head_or_with_whole_tensors_is_refused(adapter: Path, tmp_path: Path) -> None:
    head = LoraConfig(r=4, target_modules=["lm_head"], init_lora_weights=False)
    get_peft_model(base(), head).save_pretrained(tmp_path / "head", save_embedding_layers=False)
    with pytest.raises(ConfigError, match="changes lm_head"):
        read_adapter(str(tmp_path / "head"), "teacher.adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(weights | {"base_model.model.lm_head.weight": torch.ones(2, 2)}, adapter / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match=r"holds a whole tensor, base_model\.model\.lm_head\.weight"):
        read_adapter(str(adapter), "teacher.adapter")
    (adapter / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_adapter(str(adapter), "teacher.adapter")
