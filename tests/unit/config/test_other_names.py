"""A key that is another framework's name for one of ours says which one it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from renio_pipeline.config import ConfigError, RunConfig, load
from renio_pipeline.config.describe import describe
from renio_pipeline.config.other_names import FRAMEWORKS, our_name

DEMO = Path(__file__).parents[3] / "configs/demo.yaml"


def our_keys() -> set[str]:
    """Every key, and every section that has keys."""
    keys = {key.name for section in describe(RunConfig) for key in section.keys}
    return keys | {name.rpartition(".")[0] for name in keys}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_name_leads_to_a_key_that_there_is(framework: str) -> None:
    known = our_keys()
    for theirs, ours in FRAMEWORKS[framework].items():
        named = re.findall(r"\b[a-z_]+(?:\.[a-z_]+)+\b", ours) or ([ours] if " " not in ours else [])
        for key in named:
            passed_on = key.startswith(("generator.engine.", "data.fields."))
            assert key in known or passed_on, f"{framework}'s {theirs}: there is no key {key}"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_none_of_their_names_is_a_key_here(framework: str) -> None:
    """Else the table's line would never be read."""
    assert not our_keys() & FRAMEWORKS[framework].keys()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "max_completion_length=64",
            "unknown key; TRL's max_completion_length is max_response_tokens here",
        ),
        ("rollout.n=8", "rollout: unknown key; verl's rollout.n is samples_per_prompt here"),
        ("actor_rollout_ref.rollout.n=8", "actor_rollout_ref: unknown key; verl's rollout.n is samples_per_prompt here"),
        (
            "trainer.total_training_steps=8",
            "unknown key; verl's trainer.total_training_steps is steps here",
        ),
        ("trainer.learning_rate=1", "trainer.learning_rate: unknown key; TRL's learning_rate is trainer.lr here"),
        ("lmbda=0.5", "lmbda: unknown key; TRL's lmbda is nothing to set: every response is the student's own"),
        ("max_respons_tokens=8", "max_respons_tokens: unknown key; did you mean max_response_tokens?"),
    ],
)
def test_an_unknown_key_is_told_its_name_here(override: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(DEMO, [override])
    assert told in str(error.value)


def test_each_known_key_of_a_section_is_told() -> None:
    told = our_name("data", {"train_files": "a", "mystery": 1, "val_files": {"x": 1}})
    assert told == "verl's data.train_files is data.path here; verl's data.val_files is data.held_out_path here"
