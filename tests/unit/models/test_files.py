"""Sizes and tokenizers read off a model's files are those that transformers' Auto classes give."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer

from renio_pipeline.models.files import KNOWN, sizes_of, tokenizer_of
from renio_pipeline.models.info import PROBES, resolve


@pytest.mark.parametrize(("model", "kind"), [*sorted(KNOWN), ("qwen2", "Qwen2TokenizerFast")])
def test_a_known_tokenizer_is_the_one_that_auto_gives(tmp_path: Path, model: str, kind: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(resolve("embedded:student"), folder)
    for file, key, value in (("config.json", "model_type", model), ("tokenizer_config.json", "tokenizer_class", kind)):
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    ours, theirs = tokenizer_of(str(folder)), AutoTokenizer.from_pretrained(folder)
    assert type(ours) is type(theirs)
    assert ours(list(PROBES))["input_ids"] == theirs(list(PROBES))["input_ids"]
    assert (ours.chat_template, ours.eos_token_id, ours.pad_token_id) == (
        theirs.chat_template,
        theirs.eos_token_id,
        theirs.pad_token_id,
    )
    config = AutoConfig.from_pretrained(folder)
    found = sizes_of(str(folder))
    assert (found.vocab_rows, found.context, found.hidden_size) == (
        config.vocab_size,
        config.max_position_embeddings,
        config.hidden_size,
    )
    assert found.architecture == config.architectures[0]
