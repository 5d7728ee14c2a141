"""What a rank reports of a micro-batch, and writes of it into its ledger."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.trainer.micro_batches import report_of
from renio_pipeline.models.student import MicroLoss
from renio_pipeline.objectives.top_k_forward_kl import TopKForwardKL
from renio_pipeline.run_dir.ledger_files import record_trained
from renio_pipeline.types import TrainSample


def sample(sample_id: int, logprobs: list[float], *, off_policy: bool) -> TrainSample:
    values = np.array(logprobs, np.float32)
    ids = np.zeros(len(values), np.int32)
    sides = {"student_logprobs": values, "teacher_logprobs": values}
    return TrainSample(sample_id=sample_id, prompt_ids=ids[:1], response_ids=ids, weight=1.0, off_policy=off_policy, **sides)


@pytest.mark.parametrize(("foreign", "mean", "most"), [(False, 1.5, 4.0), (True, 0.25, 0.5)])
def test_the_mismatch_is_of_what_generators_wrote(foreign: bool, mean: float, most: float) -> None:
    samples = [sample(0, [-1.0, -1.0], off_policy=False), sample(1, [-2.0, -2.0], off_policy=foreign)]
    found = torch.tensor([-1.5, -1.0, -6.0, -0.5])
    micro = MicroLoss(torch.tensor(1.0), torch.ones(4), found, 8)
    report = report_of(samples, micro, TopKForwardKL())
    assert report.mismatch_mean == pytest.approx(mean)
    assert report.mismatch_max == pytest.approx(most)
    assert report.divergence == 2, "the divergence is of all"


def test_a_micro_batch_of_others_responses_alone_has_no_mismatch() -> None:
    micro = MicroLoss(torch.tensor(1.0), torch.ones(2), torch.tensor([-1.0, -2.0]), 3)
    report = report_of([sample(0, [-5.0, -5.0], off_policy=True)], micro, TopKForwardKL())
    assert (report.mismatch_mean, report.mismatch_max) == (0, 0)


def test_a_ledger_names_what_the_student_did_not_write(tmp_path: Path) -> None:
    record_trained(tmp_path, 0, step=1, incarnation=0, sample_ids=[3, 4], off_policy=[4])
    record_trained(tmp_path, 0, step=2, incarnation=0, sample_ids=[5])
    lines = [json.loads(line) for line in (tmp_path / "rank_0.jsonl").read_text().splitlines()]
    assert [line.get("off_policy") for line in lines] == [[4], None]
