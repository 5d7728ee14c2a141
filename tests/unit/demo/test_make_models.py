"""The shipped demo models: small, alike where distillation needs it, and as good and as bad as the demo says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

import renio_pipeline
from renio_pipeline.demo.make_models import STUDENT, TEACHER, Recipe, accuracy, make_demo_models
from renio_pipeline.demo.tokenizer import make_tokenizer
from renio_pipeline.tasks.arithmetic import Arithmetic

pytestmark = pytest.mark.slow

DEMO = Path(renio_pipeline.__file__).parent / "demo"
RECIPES = pytest.mark.parametrize("recipe", [TEACHER, STUDENT], ids=lambda recipe: recipe.name)
TASK = Arithmetic()


def tokenizer_of(recipe: Recipe) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(DEMO / recipe.name)


def test_together_they_take_at_most_four_megabytes() -> None:
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) <= 4_000_000


def test_teacher_and_student_share_one_tokenizer_and_it_is_the_one_the_code_makes(tmp_path: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert "tokenizer.json" in names
    for name in names:
        assert (
            (DEMO / "teacher" / name).read_bytes() == (DEMO / "student" / name).read_bytes() == (tmp_path / name).read_bytes()
        )


@RECIPES
def test_a_character_is_a_token_and_text_survives_the_round_trip(recipe: Recipe) -> None:
    tokenizer = tokenizer_of(recipe)
    row = TASK.rows("held_out", 1)[0]
    assert len(tokenizer.encode(row.solution)) == len(row.solution)
    for text in (row.solution, "Any text, é and ٩ too.\n  Two  spaces "):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@RECIPES
def test_the_chat_template_gives_the_prompt_of_the_training(recipe: Recipe) -> None:
    tokenizer = tokenizer_of(recipe)
    row = TASK.rows("held_out", 1)[0]
    prompt = tokenizer.apply_chat_template(TASK.messages(row), add_generation_prompt=True, return_dict=False)
    assert prompt == tokenizer.encode(row.problem + ":")
    answered = [*TASK.messages(row), {"role": "assistant", "content": row.solution}]
    whole = tokenizer.apply_chat_template(answered, return_dict=False)
    assert whole == prompt + tokenizer.encode(row.solution) + [tokenizer.eos_token_id]


@RECIPES
def test_the_folder_has_the_standard_layout_with_every_weight_in_bf16(recipe: Recipe) -> None:
    config = json.loads((DEMO / recipe.name / "config.json").read_text())
    assert (config["architectures"], config["dtype"]) == (["Qwen3ForCausalLM"], "bfloat16")
    assert (config["hidden_size"], config["tie_word_embeddings"]) == (recipe.hidden, recipe.tied)
    tokenizer, generation = tokenizer_of(recipe), GenerationConfig.from_pretrained(DEMO / recipe.name)
    assert (generation.eos_token_id, generation.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    with safe_open(DEMO / recipe.name / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}
        assert ("lm_head.weight" in weights.keys()) != recipe.tied


@RECIPES
def test_the_model_loads_with_nothing_missing_and_is_as_good_as_meant(recipe: Recipe) -> None:
    model, info = AutoModelForCausalLM.from_pretrained(DEMO / recipe.name, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values())
    found = accuracy(model, tokenizer_of(recipe), TASK.rows("held_out", 256), TASK)
    assert 0.9 <= found <= 1.0 if recipe is TEACHER else 0.25 <= found <= 0.6


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    small = (
        Recipe(name="teacher", hidden=32, tied=False, layers=1, steps=4, batch=8),
        Recipe(name="student", hidden=16, tied=True, layers=1, steps=4, batch=8, early=0.3, slip=0.3),
    )
    lines: list[str] = []
    for run in ("a", "b"):
        torch.rand(1)  # the caller's generator is not the seed
        report = make_demo_models(tmp_path / run, seed=3, recipes=small, progress=lines.append, problems=8)
        assert report.teacher_accuracy == report.student_accuracy == 0.0
    for name in ("teacher", "student"):
        first, second = ((tmp_path / run / name / "model.safetensors").read_bytes() for run in ("a", "b"))
        assert first == second
    assert len(lines) == 4
