"""Self-distillation by a teacher with an adapter that first writes an analysis: on real engines, resumed digit for digit.

The same run has the adaptive weighting, for which that teacher goes on from responses while it scores others.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from renio_pipeline.config import load
from renio_pipeline.models import info
from renio_pipeline.preflight import prepare
from tests.ray.runs import ROOT, SMALL, finish, lines_of, metrics, train, written
from tests.ray.test_teacher import write_adapter

STUDENT = "embedded:student"
TOKENS = 12  # of an analysis: the embedded models have little context
STEPS, KEPT, BATCH = 3, 2, 16
# A verdict that a model which answers nothing gets right half of the time, whoever writes: the weighting has something to see.
COIN = """
import zlib

from renio_pipeline.tasks.arithmetic import Arithmetic


class Coin(Arithmetic):
    def verify(self, row, text):
        return "correct" if zlib.crc32(text.encode()) % 2 else "incorrect"
"""


def student() -> Any:
    return AutoModelForCausalLM.from_pretrained(info.resolve(STUDENT), dtype=torch.float32)


@pytest.mark.timeout(1200)
def test_a_run_with_analyses_and_an_adapter_scores_what_it_says_and_resumes_with_the_same_texts(tmp_path: Path) -> None:
    write_adapter(student(), tmp_path / "adapter")
    (tmp_path / "coin.py").write_text(COIN)
    own = [
        *SMALL, f"batch_size={BATCH}", f"task={tmp_path}/coin.py:Coin",
        "samples_per_prompt=2", "data.problems=64", "evaluate.problems=0", "deterministic=true",
        f"steps={STEPS}", f"checkpoint.every={KEPT}", "teacher.model=null", f"teacher.adapter={tmp_path}/adapter",
        f"method={{type: opsd, reason_first: {{max_tokens: {TOKENS}, temperature: 0.8, top_k: 20}}}}",
        "objective={type: top_k_forward_kl, k: 8}", "prompts.reasoning='{solution};{problem}?'",
        "prompts.teacher='{solution};<{reasoning}>;{problem}'",
        "weighting={type: adaptive, probes: 1, share: 4, move: 0.5, weights_from: 0, suffix_from: 1}",
    ]  # fmt: skip
    whole, again = tmp_path / "whole", tmp_path / "again"
    finish(train(whole, *own))

    config = load(ROOT / "configs/demo.yaml", own)
    prepared = prepare(config)
    assert prepared.analyses is not None
    texts = {line["row"]: line for line in lines_of(whole / "analyses.jsonl")}
    records = [r for path in sorted((whole / "samples").glob("step_*.jsonl")) for r in lines_of(path)]
    assert len(records) == BATCH * STEPS
    assert texts.keys() == {r["row"] for r in records}
    assert len(lines_of(whole / "analyses.jsonl")) == BATCH // 2 * STEPS, "each problem's is written once"
    assert len({line["text"] for line in texts.values()}) > 1
    assert all(1 <= line["tokens"] <= TOKENS for line in texts.values())
    model = PeftModel.from_pretrained(student(), tmp_path / "adapter")
    rows = {row.id: row for row in prepared.rows}
    for r in records[:4] + records[-4:]:  # what the record says is what the teacher saw
        prompt = prepared.analyses.taught(rows[r["row"]], texts[r["row"]]["text"])
        ids = torch.tensor([[*prompt.tolist(), *r["token_ids"]]])
        with torch.no_grad():
            logits = model(ids).logits[0, len(prompt) - 1 : -1, : prepared.vocab_size]
        expected = torch.log_softmax(logits, -1).gather(1, torch.tensor(r["token_ids"])[:, None])[:, 0]
        np.testing.assert_allclose(r["teacher_logprobs"], expected.numpy(), atol=1e-4)

    shutil.copytree(whole, again)
    shutil.rmtree(again / f"checkpoints/step_{STEPS:06d}")
    (again / "result.json").unlink()
    (again / "checkpoints/latest").write_text(f"step_{KEPT:06d}")
    finish(train(again, *own, "--resume"))
    assert lines_of(again / "resumes.jsonl") == [{"incarnation": 1, "from_step": KEPT}]
    assert (again / "analyses.jsonl").read_bytes() == (whole / "analyses.jsonl").read_bytes(), "no text was written again"
    lines = metrics(whole)
    moves = [(line["adaptive/strength"], line["adaptive/after_pivotal"]) for line in lines]
    assert moves[0] == (0, 1) != moves[-1], "what the teacher makes of wrong responses moves the weighting"
    assert all(0 < line["adaptive/share"] <= 4 for line in lines[1:])
    assert metrics(again) == lines
    assert written(again) == written(whole)
