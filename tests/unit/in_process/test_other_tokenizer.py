"""A teacher with another tokenizer, end to end without engines: the demo's teacher with its vocabulary in another order."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, normalizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from renio_pipeline.config import ConfigError
from renio_pipeline.config.own_tokenizers import check_same_tokenizers
from renio_pipeline.models import info
from renio_pipeline.preflight import prepare
from tests.unit.conftest import DEMO
from tests.unit.in_process.test_in_process import TEACHER, configured, trained

SAMPLED = {"objective": {"type": "sampled"}, "steps": 1}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same probabilities of the same texts, by other ids, with other names of the special tokens and seven more tokens."""
    folder = tmp_path_factory.mktemp("models") / "other"
    spec = json.loads((DEMO / "teacher" / "tokenizer.json").read_text())
    names = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get)
    new = [f"<unused{i}>" for i in range(7)] + [{"<eos>": "</s>", "<pad>": "<blank>"}.get(n, n) for n in reversed(names)]
    spec["model"]["vocab"] = {name: i for i, name in enumerate(new)}
    spec["added_tokens"] = [
        {**token, "content": name, "id": new.index(name)}
        for token, name in zip(spec["added_tokens"], ("<blank>", "</s>"), strict=True)
    ]
    template = AutoTokenizer.from_pretrained(info.resolve("embedded:teacher")).chat_template.replace("<eos>", "</s>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)), pad_token="<blank>", eos_token="</s>", chat_template=template
    )
    model = AutoModelForCausalLM.from_pretrained(info.resolve("embedded:teacher"), dtype=torch.float32)
    rows = {"model.embed_tokens.weight", "lm_head.weight"}
    weights = {name: x for name, x in model.state_dict().items() if name not in rows}
    padding = names.index("<pad>")  # what the unused tokens are like: the model never writes it
    sides = {name: torch.cat([x[[padding] * 7], x.flip(0)]) for name, x in model.state_dict().items() if name in rows}
    model.config.vocab_size, model.config.eos_token_id, model.config.pad_token_id = len(new), new.index("</s>"), 0
    made = type(model)(model.config)
    made.load_state_dict(weights | sides)
    made.generation_config.eos_token_id, made.generation_config.pad_token_id = model.config.eos_token_id, 0
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def own(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"teacher": {**TEACHER, "model": str(folder), "tokenizer": "own", **changes}}


@pytest.mark.slow
def test_a_step_has_the_numbers_that_the_students_own_tokens_give(other: Path) -> None:
    """But for the unused tokens' own little probability."""
    found = []
    for teacher in ({"teacher": TEACHER}, own(other)):
        config = configured(**SAMPLED, **teacher)
        _, (result,) = asyncio.run(trained(config, prepare(config)))
        found.append(result)
    same, another = found
    assert len(another.scored) == 16
    for one, two in zip(same.scored, another.scored, strict=True):
        assert one.rollout.token_ids.tolist() == two.rollout.token_ids.tolist()
        assert one.rollout.prompt.teacher_ids.tolist() != two.rollout.prompt.teacher_ids.tolist()
        np.testing.assert_allclose(two.scores.logprobs, one.scores.logprobs, atol=2e-4, rtol=1e-4)
    np.testing.assert_allclose(another.weighed.weights, same.weighed.weights, rtol=1e-3)
    assert another.report.loss == pytest.approx(same.report.loss, rel=1e-3, abs=1e-3)
    assert {s.rollout.stop_reason for s in another.scored} >= {"stop"}  # so that ends were compared too


@pytest.mark.slow
def test_uld_has_the_numbers_of_the_top_k_that_the_students_own_tokens_give(other: Path) -> None:
    """Each token of one side is one of the other's, so that all of it is exact."""
    found = []
    for objective, teacher in (({"type": "top_k_forward_kl", "k": 8, "tail": False}, TEACHER), ({"type": "uld", "k": 8}, None)):
        changes = {"objective": objective, "steps": 1, **({"teacher": teacher} if teacher else own(other))}
        config = configured(**changes)
        prepared = prepare(config)
        _, (result,) = asyncio.run(trained(config, prepared))
        found.append((result.report, prepared.payload_token_bytes[""]))
    (same, size), (another, other_size) = found
    assert another.loss == pytest.approx(same.loss, rel=2e-3)
    assert another.grad_norm == pytest.approx(same.grad_norm, rel=2e-3)
    assert other_size == 2 * size
    assert "topk/overlap" in same.agreement
    assert "topk/overlap" not in another.agreement  # these are of tokens of two vocabularies


def test_uld_asks_for_a_teachers_own_tokens_and_for_fewer_than_it_has(other: Path) -> None:
    uld: dict[str, Any] = {"objective": {"type": "uld"}, "steps": 1}
    with pytest.raises(ConfigError, match=r"objective uld compares with a teacher's own tokens, and teacher.tokenizer is same"):
        configured(**uld, teacher=TEACHER)
    two = {"a": own(other)["teacher"], "b": TEACHER}
    with pytest.raises(ConfigError, match=r"teachers\.b\.tokenizer is same"):
        configured(**uld, teacher={}, teachers=two)
    with pytest.raises(ConfigError, match="must be below the vocabulary's 258 entries"):
        prepare(configured(objective={"type": "uld", "k": 258}, **own(other)))
    with pytest.raises(ConfigError, match=r"objective.sorted_weight: .*greater than or equal to 0"):
        configured(objective={"type": "uld", "sorted_weight": -1}, **own(other))
    prepared = prepare(configured(**uld, **own(other)))
    tokenizer = AutoTokenizer.from_pretrained(other)
    shared = prepared.shared_tokens[""]
    assert len(shared) == 265
    assert shared[tokenizer.eos_token_id] == prepared.tokenizer.eos_token_id
    assert shared[tokenizer.convert_tokens_to_ids("7")] == prepared.tokenizer.convert_tokens_to_ids("7")
    assert (shared[:7] == -1).all()


def test_preflight_renders_the_teachers_prompts_and_knows_its_sizes(other: Path) -> None:
    prepared = prepare(configured(**SAMPLED, **own(other)))
    tokenizer = AutoTokenizer.from_pretrained(other)
    assert tokenizer.decode(prepared.teacher_ids[0]) == prepared.tokenizer.decode(prepared.prompt_ids[0])
    sizes = prepared.sizes_of("")
    assert (prepared.vocab_size, sizes.vocab_size) == (258, 265)
    assert sizes.context == min(128, max(map(len, prepared.teacher_ids)) + 2 * 48 + 1)
    made = prepared.retokenisers[""]
    assert made.teacher_ends == {1: tokenizer.eos_token_id}
    given = prepare(configured(**SAMPLED, **own(other, end_tokens={"<eos>": "</s>"})))
    assert given.retokenisers[""].teacher_ends == made.teacher_ends


def test_routed_teachers_may_have_tokenizers_of_their_own(other: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"problem": p, "teacher": t}) + "\n" for p, t in (("1+2", "a"), ("3+4", "b"), ("5", "a")))
    )
    teachers = {"a": TEACHER, "b": own(other)["teacher"]}
    changes = {"task": "plain", "data": {"path": str(rows)}, "evaluate": {"problems": 0}, "batch_size": 6}
    config = configured(**SAMPLED, **changes, teacher={}, teachers=teachers)
    prepared = prepare(config)
    alike = [a.tolist() == b.tolist() for a, b in zip(prepared.prompt_ids, prepared.teacher_ids, strict=True)]
    assert alike == [True, False, True]
    _, (result,) = asyncio.run(trained(config, prepared))
    assert len(result.scored) == 6


def test_a_teacher_that_is_shown_the_solution_reads_it_in_its_own_tokens(other: Path) -> None:
    prepared = prepare(configured(**SAMPLED, **own(other), method={"type": "opd", "privileged": True}))
    text = AutoTokenizer.from_pretrained(other).decode(prepared.teacher_ids[0])
    assert str(prepared.rows[0].solution) in text
    assert prepared.rows[0].problem in text


def test_a_response_that_the_teacher_would_change_is_quarantined_and_the_others_are_trained_on(
    other: Path, tmp_path: Path
) -> None:
    """The tokenizer changes a text that the start-up check does not have."""
    folder = copied(other, tmp_path / "changes", normalizers.Replace("5;", "5."))
    config = configured(**SAMPLED, **own(folder))
    prepared = prepare(config)
    stages, (result,) = asyncio.run(trained(config, prepared))
    kept = [s.rollout for s in result.scored]
    assert len(kept) + len(stages.quarantined) == 16
    assert 0 < len(kept) < 16
    assert not any("5;" in prepared.tokenizer.decode(r.token_ids) for r in kept)
    changed = [j.rollout for i, j in result.judged.items() if i in stages.quarantined]
    assert all("5;" in prepared.tokenizer.decode(r.token_ids) for r in changed)


def copied(model: Path, folder: Path, normalizer: normalizers.Normalizer) -> Path:
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.normalizer = normalizer
    made.save(str(folder / "tokenizer.json"))
    return folder


def test_a_tokenizer_that_lower_cases_is_refused_at_the_start(other: Path, tmp_path: Path) -> None:
    folder = copied(other, tmp_path / "lower", normalizers.Lowercase())
    with pytest.raises(ConfigError, match=r"teacher.tokenizer: own needs a tokenizer that reads texts as they stand, .* 'the"):
        prepare(configured(**SAMPLED, **own(folder)))


def test_without_the_key_the_refusal_names_it(other: Path) -> None:
    with pytest.raises(ConfigError, match=r"so both must have one tokenizer; or set teacher.tokenizer=own"):
        prepare(configured(**SAMPLED, teacher={**TEACHER, "model": str(other)}))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"objective": {"type": "jsd"}}, "teacher.tokenizer: objective jsd compares the student at each token with the"
         " teacher's hidden states there"),
        ({"objective": {"type": "top_k_forward_kl"}}, "likeliest tokens there, and with own these are of other tokens"),
        ({"method": {"type": "opsd"}, "teacher": {**TEACHER, "model": None, "tokenizer": "own"}}, "in opsd the teacher is"),
        ({"method": {"privileged": True, "reason_first": True}}, "method.reason_first: writes in the student's tokens"),
        ({"teacher": {}, "teachers": {"a": {**TEACHER, "tokenizer": "own"}, "b": TEACHER}, "combine": {"a": 1, "b": 1}},
         "teachers.a.tokenizer: combine mixes probabilities of the same tokens"),
    ],
)  # fmt: skip
def test_what_needs_the_students_tokens_is_refused(other: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(**{**SAMPLED, **own(other), **changes})
    assert expected in str(caught.value)


def test_a_probe_is_refused_and_an_end_that_is_none_too(other: Path) -> None:
    with pytest.raises(ConfigError, match=r"teacher.tokenizer: renio probe has teachers go on from the student's tokens"):
        check_same_tokenizers(configured(**SAMPLED, **own(other)), "renio probe")
    with pytest.raises(ConfigError, match=r"teacher.end_tokens: '<blank>' ends no response of the teacher; what does: '</s>'"):
        prepare(configured(**SAMPLED, **own(other, end_tokens={"<eos>": "<blank>"})))
