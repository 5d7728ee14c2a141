"""What is found wrong with models, data and directories before an engine starts. Real folders, no weights read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.models.info import inspect, is_local, resolve
from renio_pipeline.preflight import prepare
from renio_pipeline.preflight.folders import check_run_dir
from tests.unit.conftest import DEMO, make_config

Variant = Callable[..., str]


@pytest.fixture
def variant(tmp_path: Path) -> Variant:
    """Copies the student's folder; ``edit`` changes the JSON of one of its files."""

    def make(file: str = "config.json", edit: Callable[[dict[str, Any]], object] = lambda values: None) -> str:
        folder = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(DEMO / "student", folder)
        values = json.loads((folder / file).read_text())
        edit(values)
        (folder / file).write_text(json.dumps(values))
        return str(folder)

    return make


def rename(token: str, to: str) -> Callable[[dict[str, Any]], object]:
    def edit(tokenizer: dict[str, Any]) -> None:
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary[to] = vocabulary.pop(token)

    return edit


def add_token(tokenizer: dict[str, Any]) -> None:
    extra = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"].append({"id": 258, "content": "<extra>", **extra})


def small(**changes: Any) -> RunConfig:
    shared = {"max_response_tokens": 48, "data": {"problems": 16}, "evaluate": {"problems": 4}}
    return make_config(**(shared | changes))


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        prepare(small(**changes))
    return str(caught.value)


def test_an_embedded_model_is_a_folder_of_the_package() -> None:
    found = inspect("embedded:student", "student")
    assert (found.vocab_rows, found.context, found.architecture) == (258, 128, "Qwen3ForCausalLM")
    assert found.tokens[1] == "<eos>"
    assert len(found.tokens) == 258


def test_a_home_folder_is_found(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(variant())
    monkeypatch.setenv("HOME", str(folder.parent))
    assert resolve(f"~/{folder.name}") == str(folder)
    assert inspect(f"~/{folder.name}", "student").vocab_rows == 258


@pytest.mark.parametrize("name", ["/a/b", "./a", "../a/b", "~/a", "embedded:x", "a", "a/b/c"])
def test_a_name_that_cannot_be_the_hubs_is_a_folder(name: str) -> None:
    assert is_local(name)


def test_a_name_with_an_owner_is_the_hubs_unless_such_a_folder_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_local("owner/model")
    (tmp_path / "owner/model").mkdir(parents=True)
    assert is_local("owner/model")


@pytest.mark.parametrize("name", ["embedded:pupil", "no/such/folder", "/no/such/folder"])
def test_a_missing_folder_is_named_with_its_key(name: str) -> None:
    assert refusal(student=name) == f"student: model folder {resolve(name)!r} does not exist"
    assert refusal(teacher={"model": name}) == f"teacher.model: model folder {resolve(name)!r} does not exist"


def test_a_folder_without_config_json_is_no_model(tmp_path: Path) -> None:
    assert refusal(student=str(tmp_path)).startswith(f"student: {str(tmp_path)!r} has no config.json")


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"model_type": "no-such-type"}'])
def test_a_config_json_that_says_nothing_cannot_be_read(variant: Variant, content: str) -> None:
    folder = variant()
    Path(folder, "config.json").write_text(content)
    text = refusal(teacher={"model": folder})
    assert text.startswith(f"teacher.model: {folder!r} cannot be read as a model: ")
    assert "\n" not in text


@pytest.mark.parametrize("kind", ["t5", "vit"])
def test_a_model_that_does_not_continue_text_is_refused(variant: Variant, kind: str) -> None:
    folder = variant()
    Path(folder, "config.json").write_text(json.dumps({"model_type": kind}))
    assert refusal(student=folder) == f"student: {folder!r} ({kind}) is not a causal language model"


def test_a_folder_without_a_tokenizer_is_refused(variant: Variant) -> None:
    folder = variant()
    Path(folder, "tokenizer.json").unlink()
    Path(folder, "tokenizer_config.json").unlink()
    assert refusal(student=folder) == f"student: {folder!r} has no tokenizer"


@pytest.mark.parametrize("content", ["{", "{}"])
def test_a_damaged_tokenizer_cannot_be_read(variant: Variant, content: str) -> None:
    folder = variant()
    Path(folder, "tokenizer.json").write_text(content)
    assert f"student: {folder!r} cannot be read as a model" in refusal(student=folder)


def test_a_student_without_a_chat_template_is_refused(variant: Variant) -> None:
    folder = variant()
    Path(folder, "chat_template.jinja").unlink()
    assert refusal(student=folder) == f"student: the tokenizer of {folder!r} has no chat template"


def test_tokenizers_that_disagree_at_one_id_name_it_and_both_tokens(variant: Variant) -> None:
    other = variant("tokenizer.json", rename("ł", "Ω"))
    token_id = json.loads((DEMO / "student/tokenizer.json").read_text())["model"]["vocab"]["ł"]
    text = refusal(teacher={"model": other})
    assert f"disagree at 1 ids, first at id {token_id}: student 'ł', teacher 'Ω'" in text
    assert "'embedded:student'" in text
    assert repr(other) in text


def test_a_token_that_only_one_tokenizer_has_is_a_disagreement(variant: Variant) -> None:
    longer = variant("tokenizer.json", add_token)
    message = "disagree at 1 ids, first at id 258"
    assert f"{message}: student None, teacher '<extra>'" in refusal(teacher={"model": longer})
    assert f"{message}: student '<extra>', teacher None" in refusal(student=longer)


@pytest.mark.parametrize("wider", ["student", "teacher"])
def test_other_numbers_of_output_rows_are_accepted_and_v_is_the_smaller(variant: Variant, wider: str) -> None:
    padded = variant("config.json", lambda values: values.update(vocab_size=320))
    changes = {"student": padded} if wider == "student" else {"teacher": {"model": padded}}
    assert prepare(small(**changes)).vocab_size == 258
    assert prepare(small(student=padded, teacher={"model": padded})).vocab_size == 320


def test_a_prepared_run_has_every_prompt_and_the_context_to_serve_the_longest() -> None:
    prepared = prepare(small())
    assert (len(prepared.rows), len(prepared.held_out)) == (16, 4)
    assert [len(prepared.prompt_ids), len(prepared.held_out_ids)] == [16, 4]
    longest = max(len(row.problem) for row in [*prepared.rows, *prepared.held_out])
    assert prepared.context == longest + len(":") + 48 + 1


def test_without_evaluation_no_row_is_held_out() -> None:
    prepared = prepare(small(evaluate={"problems": 0}))
    assert prepared.held_out == prepared.held_out_ids == []


def with_rows(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_context_is_full_to_the_last_token_and_no_further(tmp_path: Path) -> None:
    data = {"path": with_rows(tmp_path / "rows", {"id": "short", "problem": "1"}, {"id": "long", "problem": "1" * 99})}
    assert prepare(small(data=data, max_response_tokens=27)).context == 128
    text = refusal(data=data, max_response_tokens=28)
    assert text.startswith("max_response_tokens: the prompt of row 'long' has 100 tokens; with max_response_tokens (28)")
    assert "exceeds the context of embedded:student, 128" in text


def test_the_shorter_of_the_two_contexts_counts(variant: Variant) -> None:
    short = variant("config.json", lambda values: values.update(max_position_embeddings=64))
    assert f"exceeds the context of {short}, 64" in refusal(teacher={"model": short}, max_response_tokens=60)


def test_a_held_out_prompt_counts_for_the_context_too(tmp_path: Path) -> None:
    held_out = with_rows(tmp_path / "held_out", {"id": "giant", "problem": "1" * 200, "answer": "1"})
    text = refusal(data={"problems": 4, "held_out_path": held_out})
    assert "the prompt of row 'giant' has 201 tokens" in text


def test_k_must_be_below_the_vocabulary() -> None:
    assert prepare(small(objective={"type": "top_k_forward_kl", "k": 257})).vocab_size == 258
    text = refusal(objective={"type": "top_k_forward_kl", "k": 258})
    assert text == "objective.k: 258 must be below the vocabulary's 258 entries"


def test_the_payload_must_fit_to_the_byte() -> None:
    objective = {"type": "top_k_forward_kl", "k": 7}
    need = 32 * 48 * 8 * 8
    assert prepare(small(objective=objective, payload={"max_bytes": need})).payload_bytes == need
    text = refusal(objective=objective, payload={"max_bytes": need - 1})
    assert text.startswith(f"payload.max_bytes: a step's top_k may take {need} bytes")
    assert f"payload.max_bytes is {need - 1}; raise it, or lower batch_size or objective.k" in text


def test_the_sampled_objective_has_no_payload_to_bound() -> None:
    prepare(small(objective={"type": "sampled"}, payload={"max_bytes": 1}))


def test_held_out_rows_without_answers_are_found_before_the_engines_start(tmp_path: Path) -> None:
    train = with_rows(tmp_path / "train", {"problem": "1"})
    held_out = with_rows(tmp_path / "held_out", {"problem": "1"}, {"problem": "2"})
    data = {"path": train, "held_out_path": held_out}
    text = refusal(task="plain", data=data)
    assert text.startswith(f"data.held_out_path: no row of {held_out} has an answer that task plain can verify")
    prepare(small(task="plain", data=data, evaluate={"problems": 0}))


def test_a_task_without_problems_of_its_own_asks_for_a_file(tmp_path: Path) -> None:
    assert refusal(task="plain") == "task plain generates no problems: set data.path"
    train = with_rows(tmp_path / "train", {"problem": "1"})
    assert "set data.held_out_path (or evaluate.problems=0)" in refusal(task="plain", data={"path": train})


def test_an_unknown_task_is_told_the_known_ones() -> None:
    allowed = "arithmetic, plain, maths, code, reasoning-gym, or your own file, path.py:Class"
    assert refusal(task="chess") == f"task: 'chess' is not known; allowed: {allowed}"


def test_the_directory_of_another_run_is_refused_by_the_key_that_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/old").mkdir(parents=True)
    (tmp_path / "runs/old/config.yaml").touch()
    with pytest.raises(ConfigError, match=r"^name: runs/old is another run's directory \(it is not empty\)"):
        check_run_dir(make_config(name="old"))
    with pytest.raises(ConfigError, match=r"^run_dir: runs/old is another run's directory"):
        check_run_dir(make_config(run_dir="runs/old"))
    with pytest.raises(ConfigError, match=r"^run_dir: "):
        check_run_dir(make_config(run_dir="runs/old/config.yaml"))


def test_a_new_or_an_empty_directory_is_fine(tmp_path: Path) -> None:
    check_run_dir(make_config(run_dir=str(tmp_path)))
    check_run_dir(make_config(run_dir=str(tmp_path / "new")))


def test_a_directory_that_has_only_been_probed_is_fine(tmp_path: Path) -> None:
    (tmp_path / "probes/20260101-000000").mkdir(parents=True)
    check_run_dir(make_config(run_dir=str(tmp_path)))


def test_a_run_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run_dir: .*file/run cannot be made"):
        check_run_dir(small(run_dir=str(tmp_path / "file/run")))


def test_a_row_without_the_solution_that_self_distillation_needs_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"problem": "1+1", "solution": "1+1=2"}\n\n{"problem": "1+2"}\n')
    data = {"path": str(path)}
    text = refusal(method={"type": "opsd"}, teacher={"model": None}, data=data, task="plain", evaluate={"problems": 0})
    assert f"{path}, line 3 has no solution" in text


def write_small(tokenizer: dict[str, Any]) -> None:
    tokenizer["normalizer"] = {"type": "Lowercase"}


def test_tokenizers_with_the_same_tokens_that_cut_text_differently_are_refused(variant: Variant) -> None:
    folder = variant("tokenizer.json", write_small)
    assert inspect(folder, "student").tokens == inspect("embedded:student", "student").tokens
    text = refusal(student=folder)
    assert 'have the same tokens but cut text differently: "The quick brown fox' in text
    assert "teacher.model" in text


def test_the_students_prompt_is_plain_and_a_teacher_that_sees_the_solution_gets_the_template(variant: Variant) -> None:
    student = variant("tokenizer_config.json")
    template = Path(student, "chat_template.jinja")
    template.write_text("<eos>" + template.read_text())
    shared = {"student": student, "teacher": {}, "method": {"type": "opsd"}, "max_response_tokens": 24}
    chat, plain = (prepare(small(data={"problems": 4, "student_prompt": kind}, **shared)) for kind in ("chat", "plain"))
    special = set(chat.tokenizer.all_special_ids)
    assert special & set(chat.prompt_ids[0].tolist())
    assert not special & set(plain.prompt_ids[0].tolist())
    assert plain.teacher_ids[0].tolist() == chat.teacher_ids[0].tolist()


def test_a_prompt_with_a_token_that_the_smaller_head_lacks_is_refused(variant: Variant) -> None:
    teacher = variant("config.json", lambda values: values.update(vocab_size=20))
    text = refusal(teacher={"model": teacher}, objective={"type": "sampled"})
    assert "has token" in text
    assert "the smaller of their output heads has 20 rows" in text


def test_a_teacher_that_ends_nowhere_where_the_student_does_is_refused_unless_the_student_is_ended_there(
    variant: Variant,
) -> None:
    """Two ends that never meet: in the generation settings, and in the tokenizer's own end token."""
    vocabulary = json.loads((DEMO / "student/tokenizer.json").read_text())["model"]["vocab"]
    end, own = vocabulary[";"], json.loads((DEMO / "student/generation_config.json").read_text())["eos_token_id"]
    folder = variant("generation_config.json", lambda values: values.update(eos_token_id=end))
    prepare(small(teacher={"model": folder}))  # the tokenizer's end token is still one of both
    path = Path(folder, "tokenizer_config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": ";"}))
    told = refusal(teacher={"model": folder})
    assert f"the teacher {folder!r} ends its responses with ';' ({end}), and the student's end with '<eos>' ({own})" in told
    assert f"sampling.stop_token_ids=[{end}]" in told
    prepare(small(teacher={"model": folder}, sampling={"stop_token_ids": [end]}))
    assert "teacher.end_tokens={'<eos>': ';'}" in told
    assert prepare(small(teacher={"model": folder, "end_tokens": {"<eos>": ";"}})).end_tokens == {"": ((own, end),)}


TEACHER = {"model": "embedded:teacher", "dtype": "float32"}


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        ({";": ";"}, "teacher.end_tokens: ';' ends no response of the student; what does: '<eos>'"),
        ({"<eos>": "7"}, "teacher.end_tokens: '7' ends no response of the teacher; what does: '<eos>'"),
        ({"<end>": "<eos>"}, "teacher.end_tokens: '<end>' ends no response of the student"),
    ],
)
def test_an_end_that_is_none_is_refused(mapping: dict[str, str], told: str) -> None:
    assert told in refusal(teacher=TEACHER | {"end_tokens": mapping})


def test_a_teacher_whose_template_ends_answers_elsewhere_is_warned_of_until_its_end_is_mapped(variant: Variant) -> None:
    """Its generation settings name both ends, so that they meet; what it was trained on has the other one alone."""
    vocabulary = json.loads((DEMO / "student/tokenizer.json").read_text())["model"]["vocab"]
    folder = variant(
        "generation_config.json", lambda values: values.update(eos_token_id=[vocabulary[";"], vocabulary["<eos>"]])
    )
    Path(folder, "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }};{% endfor %}")

    def warnings(**teacher: Any) -> list[str]:
        return [note for note in prepare(small(teacher={"model": folder, **teacher})).notes if "the teacher" in note]

    (told,) = warnings()
    assert f"the chat template of the teacher {folder!r} ends an answer with ';', and the student's responses end with" in told
    assert told.endswith("see teacher.end_tokens and sampling.stop_token_ids")
    assert warnings(end_tokens={"<eos>": ";"}) == []


def test_an_end_has_one_partner_and_none_in_self_distillation(variant: Variant) -> None:
    end = json.loads((DEMO / "student/tokenizer.json").read_text())["model"]["vocab"][";"]
    both = {"model": variant("generation_config.json", lambda values: values.update(eos_token_id=end))}
    crossed = both | {"end_tokens": {"<eos>": ";", ";": "<eos>"}}
    told = refusal(teacher=crossed, sampling={"stop_token_ids": [end]})
    assert "teacher.end_tokens: '<eos>' is in two pairs" in told
    same = TEACHER | {"end_tokens": {"<eos>": "<eos>"}}
    assert prepare(small(teacher=same)).end_tokens == {"": ()}, "there is nothing to exchange"
    assert "in opsd the teacher is the student itself" in refusal(
        method={"type": "opsd"}, teacher={"model": None, "end_tokens": {"<eos>": "<eos>"}}
    )
