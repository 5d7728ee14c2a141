"""What vLLM is asked for when an engine is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from vllm import LLMEngine

import renio_pipeline
from actors.engines.build import build_engine
from actors.engines.specs import EngineSpec

STUDENT = str(Path(renio_pipeline.__file__).parent / "demo" / "student")


class Asked(Exception):
    """Raised in place of loading the model, with what vLLM was asked for."""


@pytest.mark.parametrize(
    ("changes", "head"),
    [
        ({"dtype": "bfloat16"}, torch.float32),
        ({"dtype": "float32"}, torch.float32),
        ({"dtype": "bfloat16", "hidden_states": True}, torch.bfloat16),  # the states must stay what the model makes
        ({"dtype": "bfloat16", "options": {"hf_overrides": {"head_dtype": "model"}}}, torch.bfloat16),
    ],
)
def test_a_bf16_engine_that_writes_or_scores_has_an_fp32_head(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], head: torch.dtype
) -> None:
    def ask(args: Any, *rest: Any, **more: Any) -> None:
        raise Asked(args)

    monkeypatch.setattr(LLMEngine, "from_engine_args", ask)
    with pytest.raises(Asked) as asked:
        build_engine(EngineSpec(**{"model": STUDENT, "context": 64, "temperature": 1.0, "vocab_size": 250} | changes))
    model = asked.value.args[0].create_model_config()
    assert model.dtype == getattr(torch, changes["dtype"])
    assert model.head_dtype == head
