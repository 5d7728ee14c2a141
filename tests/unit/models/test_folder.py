"""A model that cannot be trained, or is not all here, is refused by name before anything loads it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from renio_pipeline.config import ConfigError
from renio_pipeline.models.info import inspect
from renio_pipeline.preflight import prepare
from renio_pipeline.preflight.offline import check_offline
from renio_pipeline.run_dir import checkpoint_files
from renio_pipeline.run_dir.checkpoint_files import RunState
from tests.unit.conftest import DEMO, make_config

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 4935\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the student."""
    return Path(shutil.copytree(DEMO / "student", tmp_path / "model"))


def small(**changes: Any) -> Any:
    return make_config(**{"max_response_tokens": 48, "data": {"problems": 4}, "evaluate": {"problems": 4}} | changes)


def refusal(folder: Path, key: str = "student") -> str:
    changes: dict[str, Any] = {"student": str(folder)} if key == "student" else {"teacher": {"model": str(folder)}}
    with pytest.raises(ConfigError) as caught:
        prepare(small(**changes))
    text = str(caught.value)
    assert text.startswith(f"{key}: ")
    assert "\n" not in text
    return text


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def in_shards(folder: Path) -> list[str]:
    """Write the weights as two files and an index."""
    weights = load_file(folder / "model.safetensors")
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    placed = {key: names[i % 2] for i, key in enumerate(sorted(weights))}
    for name in names:
        save_file({key: weights[key] for key, file in placed.items() if file == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    (folder / "model.safetensors").unlink()
    return names


@pytest.mark.parametrize("key", ["student", "teacher.model"])
def test_a_folder_without_weights_is_refused_and_told_what_is_there(folder: Path, key: str) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    text = refusal(folder, key)
    assert f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin, nor an index" in text
    names = ["chat_template.jinja", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    assert text.endswith(f"; it has {', '.join([*names, 'weights.safetensors'])}")


def test_weights_in_several_files_must_all_be_there(folder: Path) -> None:
    _, second = in_shards(folder)
    inspect(str(folder), "student")
    (folder / second).unlink()
    assert f"lacks {second}, which its index lists" in refusal(folder)
    (folder / second).write_text(POINTER)
    assert f"{folder / second} is a Git LFS pointer, and the file of 4935 bytes" in refusal(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    assert "model.safetensors.index.json cannot be read: KeyError: 'weight_map'" in refusal(folder)


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_weights_that_are_cut_short_are_refused(folder: Path, cut: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    assert f"{file} ({file.stat().st_size} bytes) is damaged or not whole" in refusal(folder)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
)
@pytest.mark.parametrize("key", ["student", "teacher.model"])
def test_a_git_lfs_pointer_in_the_place_of_a_file_is_called_one(folder: Path, name: str, key: str) -> None:
    (folder / name).write_text(POINTER)
    assert f"{folder / name} is a Git LFS pointer" in refusal(folder, key)
    assert "git lfs pull" in refusal(folder, key)


def test_weights_of_another_kind_beside_the_models_are_nobodys_business(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_text(POINTER)
    (folder / "consolidated.safetensors").write_text(POINTER)
    inspect(str(folder), "student")


def test_an_offline_check_says_that_weights_are_not_here(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    _, missing = check_offline(small(student=str(folder)))
    assert len(missing) == 2
    assert missing[0].startswith(f"student: {folder} has no weights")
    assert missing[1] == "the cluster"


def test_pickled_weights_are_no_teacher_whose_head_is_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    prepare(small(teacher={"model": str(folder)}))
    with pytest.raises(
        ConfigError, match=r"teacher\.model: .*pytorch_model\.bin, and jsd reads its output head from safetensors"
    ):
        prepare(small(teacher={"model": str(folder), "type": "torch"}, objective={"type": "jsd"}))


def write_checkpoint(run: Path, write: Callable[[Path], object]) -> Path:
    partial = checkpoint_files.begin(run / "checkpoints", RunState(step=10))
    write(partial)
    return checkpoint_files.commit(partial, RunState(step=10))


def test_a_runs_folder_and_a_checkpoint_are_told_the_folder_of_the_model(tmp_path: Path, folder: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    assert "is a run's folder, not a model's, and has no complete checkpoint" in refusal(run)
    made = write_checkpoint(run, lambda partial: shutil.copytree(folder, partial / "hf"))
    assert refusal(run).endswith(
        f"is a run's folder, not a model's; its newest checkpoint has the model in {made / 'hf'}: give that folder"
    )
    assert refusal(made, "teacher.model").endswith(
        f"is a checkpoint, not a model; it has the model in {made / 'hf'}: give that folder"
    )
    prepare(small(student=str(made / "hf")))


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    def adapter(partial: Path) -> None:
        (partial / "adapter").mkdir()
        (partial / "adapter" / "adapter_config.json").write_text("{}")

    made = write_checkpoint(tmp_path / "run", adapter)
    for place in (tmp_path / "run", made, made / "adapter"):
        assert "has a LoRA adapter but no whole model; train with checkpoint.merged=true" in refusal(place)


def test_a_gguf_file_is_no_model_folder(tmp_path: Path) -> None:
    (tmp_path / "model-q4.gguf").touch()
    assert "has a GGUF file; expected a Hugging Face model folder, with config.json and safetensors" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization_config": {"load_in_4bit": True}}, "unknown method"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "mlx"),
    ],
)
def test_a_quantised_student_is_refused_and_a_quantised_teacher_is_not(
    folder: Path, changes: dict[str, Any], method: str
) -> None:
    edit(folder / "config.json", **changes)
    assert f"{str(folder)!r} is quantised ({method}), and quantised weights cannot be trained" in refusal(folder)
    prepare(small(teacher={"model": str(folder)}))


CLASSES = {
    "Qwen3ForSequenceClassification": "it classifies texts, or scores them as a reward model does",
    "Qwen2ForTokenClassification": "it classifies tokens",
    "BertForMaskedLM": "it fills in masked tokens",
    "Qwen2ForRewardModel": "it scores texts",
    "Qwen3Model": "it has no output head",
    "NoSuchThing": "is not a causal language model",
}


@pytest.mark.parametrize("key", ["student", "teacher.model"])
@pytest.mark.parametrize("architecture", CLASSES)
def test_a_model_that_does_not_continue_text_is_refused_by_its_class(folder: Path, architecture: str, key: str) -> None:
    edit(folder / "config.json", architectures=[architecture])
    text = refusal(folder, key)
    assert f"{str(folder)!r} ({architecture}) is not a causal language model" in text
    assert CLASSES[architecture] in text


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"architectures": ["Gemma3ForConditionalGeneration"], "vision_config": {"hidden_size": 8}},
            "reads images besides text",
        ),
        ({"architectures": ["Qwen2AudioForConditionalGeneration"], "audio_config": {"d_model": 8}}, "reads audio besides text"),
        ({"model_type": "chatglm", "auto_map": {"AutoModel": "x.y"}}, "brings code of its own (auto_map)"),
    ],
)
def test_a_model_of_more_than_text_or_with_its_own_code_is_refused(folder: Path, values: dict[str, Any], says: str) -> None:
    edit(folder / "config.json", **values)
    assert says in refusal(folder)


def test_a_known_architecture_may_bring_its_authors_code_along(folder: Path) -> None:
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_x.X"})
    inspect(str(folder), "student")


@pytest.mark.slow
def test_looking_at_a_common_model_imports_no_torch() -> None:
    code = (
        "import sys; from renio_pipeline.models.info import inspect; inspect('embedded:student', 'student'); "
        "print([m for m in ('torch', 'vllm', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
