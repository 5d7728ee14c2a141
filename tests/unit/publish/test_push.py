"""``renio push`` to a fake of the hub, through huggingface_hub itself; and the card that it writes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.cli import main
from renio_pipeline.models.info import resolve
from renio_pipeline.publish.card import model_card
from renio_pipeline.publish.markdown import code_block, plain
from renio_pipeline.publish.source import find
from renio_pipeline.run_dir.checkpoint_files import RunState, begin, commit
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.run_dir.starts import record_start
from renio_pipeline.types import Evaluation
from tests.fakes.hub import TOKEN, FakeHub, serving
from tests.unit.conftest import make_config
from tests.unit.recorded_runs import line

REPO = "me/my-model"
BASE = "Qwen/Qwen3-1.7B"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    from huggingface_hub import constants

    with serving(FakeHub()) as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # large files go by LFS, which the fake speaks
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found


def make_run(path: Path, *, steps: int = 4, done: tuple[int, ...] = (2, 4), lora: bool = False, **changes: Any) -> Path:
    keys = {"name": "first", "run_dir": str(path), "steps": steps, "student": BASE} | changes
    directory = RunDirectory(make_config(**keys, **({"trainer": {"lora": {"r": 4, "alpha": 8}}} if lora else {})))
    record_start(path, 0, ["/bin/renio", "train", "--config", "my.yaml", f"steps={steps}", "a=hf_abcdefghijklmnop"], [])
    for step in range(1, max(done, default=0) + 1):
        (directory.metrics).open("a").write(json.dumps({"step": step, **line(step)}) + "\n")
    for step in (0, *done):
        accuracy = 0.25 + step / 10
        found = Evaluation(problems=64, accuracy=accuracy, low=accuracy - 0.1, high=accuracy + 0.1, response_tokens=30.4)
        directory.write_evaluation(step, found)
    for step in done:
        partial = begin(directory.checkpoints, RunState(step=step))
        if lora:
            (partial / "adapter").mkdir()
            write_adapter(partial / "adapter")
        else:
            shutil.copytree(resolve("embedded:student"), partial / "hf")
        commit(partial, RunState(step=step))
    return path


def write_adapter(folder: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    factors = {f"base_model.model.model.layers.0.self_attn.q_proj.lora_{x}.weight": np.zeros((4, 4), np.float32) for x in "AB"}
    save_file(factors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "/home/me/secret/place"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))


def push(run: Path, *arguments: str, capsys: Any, repo: str = REPO) -> tuple[int, str]:
    code = main(["push", str(run), repo, *arguments])
    shown = capsys.readouterr()
    return code, shown.out + shown.err


def test_a_model_arrives_whole_with_its_card(hub: FakeHub, tmp_path: Path, capsys: Any) -> None:
    run = make_run(tmp_path / "run")
    code, shown = push(run, "--license", "apache-2.0", "--private", capsys=capsys)
    assert code == 0, shown
    assert f"pushed: {hub.url}/{REPO}/commit/main@1" in shown
    assert TOKEN not in shown
    assert hub.private[REPO]
    there, folder = hub.branches[REPO]["main"], run / "checkpoints" / "step_000004" / "hf"
    assert there.keys() == {"README.md", *(p.name for p in folder.iterdir())}
    assert all(there[p.name] == p.read_bytes() for p in folder.iterdir())
    assert hub.uploads, "no file went the way of large ones"
    assert there["README.md"].decode() == model_card(find(run), REPO, license="apache-2.0")
    assert push(run, "--private", capsys=capsys)[0] == 0, "pushed again, it is the same repository"


def test_another_step_goes_to_a_branch_of_its_own(hub: FakeHub, tmp_path: Path, capsys: Any) -> None:
    run = make_run(tmp_path / "run")
    code, shown = push(run, "--checkpoint", "2", "--revision", "early", capsys=capsys)
    assert code == 0, shown
    assert hub.branches[REPO]["main"] == {}
    card = hub.branches[REPO]["early"]["README.md"].decode()
    assert "after 2 steps" in card
    assert "| 4 |" not in card


def test_an_adapter_names_its_base_on_the_hub(hub: FakeHub, tmp_path: Path, capsys: Any) -> None:
    code, shown = push(make_run(tmp_path / "run", lora=True), capsys=capsys)
    assert code == 0, shown
    there = hub.branches[REPO]["main"]
    assert json.loads(there["adapter_config.json"])["base_model_name_or_path"] == BASE
    assert b"secret" not in b"".join(there.values())
    assert there.keys() == {"README.md", "adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize(
    ("part", "status", "told"),
    [
        ("/api/repos/create", 403, r"answers 403 .*: the token may not write to me/my-model; it needs write access"),
        ("/preupload/", 403, r"answers 403 .*: the token may not write to me/my-model"),
        ("/objects/batch", 403, r"answers 403"),
        ("/commit/", 403, r"answers 403"),
        ("/commit/", 409, r"answers 409 .*: somebody else changed the repository in the meantime; push again"),
    ],
)
def test_a_refusal_is_one_line_and_leaves_the_repository_as_it_was(
    hub: FakeHub, tmp_path: Path, capsys: Any, part: str, status: int, told: str
) -> None:
    hub.branches[REPO], hub.private[REPO] = {"main": {"README.md": b"old"}}, False
    if part == "/api/repos/create":
        hub.refuse["/preupload/"] = status  # huggingface_hub overlooks the first, as the repository is there
    hub.refuse[part] = status
    code, shown = push(make_run(tmp_path / "run"), capsys=capsys)
    assert code == 2
    (error,) = [text for text in shown.splitlines() if text.startswith("error: ")]
    assert re.search(rf"me/my-model: nothing was pushed: {hub.url} {told}", error)
    assert "pushed: " not in shown.replace("nothing was pushed: ", "")
    assert hub.branches[REPO]["main"] == {"README.md": b"old"}


def test_a_token_that_is_not_valid(hub: FakeHub, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrst")
    code, shown = push(make_run(tmp_path / "run"), capsys=capsys)
    assert (code, "answers 401" in shown, "the token is not valid; make another one" in shown) == (2, True, True)
    assert "hf_abcdefghijklmnopqrst" not in shown


def test_a_file_that_the_hub_lost_is_not_called_pushed(hub: FakeHub, tmp_path: Path, capsys: Any) -> None:
    hub.lose = "model.safetensors"
    code, shown = push(make_run(tmp_path / "run"), capsys=capsys)
    assert code == 2
    assert f"error: {REPO}: after the upload the hub lacks model.safetensors, or has another size; push again" in shown
    assert "pushed: " not in shown


def test_private_is_not_taken_for_done_where_the_repository_is_public(hub: FakeHub, tmp_path: Path, capsys: Any) -> None:
    hub.branches[REPO], hub.private[REPO] = {"main": {}}, False
    code, shown = push(make_run(tmp_path / "run"), "--private", capsys=capsys)
    assert code == 2
    assert "--private: me/my-model is there already, and public" in shown
    assert hub.branches[REPO]["main"] == {}


def test_metadata_that_the_hub_refuses_is_told_in_its_words(hub: FakeHub, tmp_path: Path, capsys: Any) -> None:
    code, shown = push(make_run(tmp_path / "run"), "--license", "apache2", capsys=capsys)
    assert (code, '"license" must be one of' in shown) == (2, True)
    assert hub.branches[REPO]["main"] == {}


def test_a_hub_that_is_not_there(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    code, shown = push(make_run(tmp_path / "run"), capsys=capsys)
    assert (code, "nothing was pushed: http://127.0.0.1:9 cannot be reached" in shown) == (2, True)


def test_a_dry_run_writes_the_card_without_network_or_token(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    run = make_run(tmp_path / "run")
    code, shown = push(run, "--dry-run", capsys=capsys)
    assert code == 0, shown
    assert f"with the card {run / 'model-card.md'}" in shown
    assert (run / "model-card.md").read_text() == model_card(find(run), REPO)


BAD = {
    "no run": ("", {}, [], REPO, r"RUN: .*/other does not exist; give a run's directory"),
    "no name": ("run", {}, [], "my-model", r"REPO: 'my-model' is not user/name"),
    "two names": ("run", {}, [], "me/my/model", r"REPO: 'me/my/model' is not user/name"),
    "bad base": ("run", {}, ["--base-model", "x"], REPO, r"--base-model: 'x' is not user/name"),
    "no checkpoint": ("run", {"done": ()}, [], REPO, r"has no complete checkpoint, so there is no model to push"),
    "not ended": ("run", {"steps": 9}, [], REPO, r"has not ended: its last checkpoint is of step 4 of 9; .* --checkpoint 4"),
    "no such step": ("run", {}, ["--checkpoint", "3"], REPO, r"--checkpoint: .* of step '3'; there are: 2, 4"),
    "no adapter": ("run", {}, ["--adapter"], REPO, r"--adapter: .* has no adapter: the run trained the whole model"),
    "no card": ("run", {}, ["--card", "nowhere.md"], REPO, r"--card: nowhere.md cannot be used"),
    "no token": ("run", {}, [], REPO, r"HF_TOKEN: there is no token; make one with write access"),
}


@pytest.mark.parametrize(("place", "keys", "options", "repo", "told"), BAD.values(), ids=BAD)
def test_what_cannot_be_pushed_is_said_before_the_hub_is_asked(
    tmp_path: Path,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    keys: dict[str, Any],
    options: list[str],
    repo: str,
    told: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    run = make_run(tmp_path / "run", **keys)
    code, shown = push(run if place else tmp_path / "other", *options, repo=repo, capsys=capsys)
    assert code == 2
    assert re.search(f"^error: {told}" if told[0] != "h" else told, shown, re.MULTILINE), shown


def test_the_metadata_are_what_huggingface_hub_reads(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard(model_card(find(make_run(tmp_path / "run")), REPO, license="mit")).data
    assert (data.base_model, data.base_model_relation, data.license) == (BASE, "finetune", "mit")
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert {"on-policy-distillation", "opd"} <= set(data.tags)
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.65)
    assert data.datasets is None
    keys = {"data": {"path": "org/sums"}, "task": "maths"}
    adapter = ModelCard(model_card(find(make_run(tmp_path / "lora", lora=True, **keys)), REPO)).data
    assert adapter.datasets == ["org/sums"]
    assert (adapter.library_name, adapter.base_model_relation) == ("peft", "adapter")


def test_the_card_tells_how_the_model_was_made(tmp_path: Path) -> None:
    card = model_card(find(make_run(tmp_path / "run")), REPO)
    assert "[Qwen/Qwen3\\-1.7B](https://huggingface.co/Qwen/Qwen3-1.7B) after 4 steps" in card
    assert "| 0 | 25.0% | 15.0% to 35.0% | 64 | 30 |" in card
    assert "| 4 | 65.0% | 55.0% to 75.0% | 64 | 30 |" in card
    assert "renio train --config my.yaml steps=4 'a=***'" in card
    assert "| torch |" in card
    assert "| loss | 1 | 0.25 |" in card
    assert str(tmp_path) not in card


SECRET = {"type": "recorded", "path": "/home/me/secret/scores"}


@pytest.mark.parametrize(
    ("teachers", "said"),
    [
        ({"teacher": SECRET}, "from a recorded teacher: all of the responses"),
        ({"teacher": {**SECRET, "model": "org/big"}}, "from [org/big](https://huggingface.co/org/big): all of the responses"),
        (
            {"teacher": {}, "teachers": {"a": {"model": "org/big"}, "b": SECRET}},
            "and a recorded teacher: some of the responses",
        ),
    ],
    ids=["all", "all, named", "some"],
)
def test_a_model_that_learned_from_a_recording_is_not_called_on_policy(
    tmp_path: Path, teachers: dict[str, Any], said: str
) -> None:
    from huggingface_hub import ModelCard

    run = make_run(tmp_path / "run", objective={"type": "top_k_forward_kl", "k": 4}, **teachers)
    text = model_card(find(run), REPO)
    tags = set(ModelCard(text).data.tags)
    assert (tags & {"distillation", "on-policy-distillation"}, "on-policy" in text) == ({"distillation"}, False)
    assert said in text
    assert "recorded before" in text
    assert "secret" not in text


def test_nothing_of_a_configuration_is_read_as_markdown(tmp_path: Path) -> None:
    """The name of a repository, a task and a teacher, and a command that would end its block of code."""
    evil = "[x](http://evil)|<script>alert(1)</script>`*#"
    assert not re.search(r"(?<![\\&])[\[\]|`*#]", plain(evil)), plain(evil)
    assert "<" not in plain(evil)
    assert "http://" not in plain(evil)
    block = code_block("a\n```\n# not a heading")
    assert block.startswith("````\n")
    assert block.endswith("\n````")
    run = make_run(tmp_path / "run", teacher={"model": "/models/[evil](x)|y"})
    record_start(run, 2, ["renio", "train", "````\n# evil"], [])
    card = model_card(find(run), REPO)
    assert card.count("evil\\](x\\)\\|y") == 0
    assert card.count("\\[evil\\]\\(x\\)\\|y") == 2
    assert "`````bash" in card
