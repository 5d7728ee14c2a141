"""What of the sampling section reaches vLLM, and in which units."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.engines.generator import sampling_options
from renio_pipeline.config import ConfigError, load
from renio_pipeline.config.schema import Sampling

COLD = ["temperature=0.5", "sampling.temperature=0.5", "evaluate.temperature=0.5"]
DEMO = Path(__file__).parents[2] / "configs/demo.yaml"


def test_defaults_are_left_to_vllm_and_none_of_them_is_missed() -> None:
    assert sampling_options(Sampling(), 1.0) == {}
    given = Sampling(
        min_p=0.1, presence_penalty=1, frequency_penalty=-1, repetition_penalty=1.2, stop=("a",), stop_token_ids=(3,)
    )
    assert sampling_options(given, 1.0) == {
        "min_p": 0.1,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "repetition_penalty": 1.2,
        "stop": ["a"],
        "stop_token_ids": [3],
    }
    assert Sampling.model_fields.keys() == sampling_options(given, 1.0).keys() | {"temperature", "top_p", "top_k"}


def test_a_penalty_is_subtracted_from_the_models_logits_not_from_those_divided_by_the_distillation_temperature() -> None:
    assert sampling_options(Sampling(presence_penalty=1.5, repetition_penalty=1.5), 2.0) == {
        "presence_penalty": 0.75,
        "repetition_penalty": 1.5,
    }


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["sampling.presence_penalty=3"], "sampling.presence_penalty"),
        (
            [*COLD, "sampling.frequency_penalty=1.5"],
            "may be at most twice temperature",
        ),
        (["sampling.stop=['']"], "an empty text would end every response at once"),
        (["sampling.repetition_penalty=0"], "sampling.repetition_penalty"),
        (["sampling.min_p=2"], "sampling.min_p"),
    ],
)
def test_what_the_engine_would_refuse_is_refused_before_it_starts(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(DEMO, overrides)
