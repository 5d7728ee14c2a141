"""A trainer rank whose driver has lost the run's directory writes nothing more into it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.trainer import rank as rank_module
from actors.trainer.messages import RankSpec
from actors.trainer.rank import TrainerRank
from renio_pipeline.config.schema import Trainer
from renio_pipeline.ledger import history
from renio_pipeline.run_dir.fence import Fence, LeaseLostError


def test_a_line_of_the_ledger_is_written_under_the_lease_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease, ledger = tmp_path / "1", tmp_path / "ledger"
    lease.write_text("token")
    ledger.mkdir()
    rank: Any = TrainerRank(RankSpec(model="m", trainer=Trainer(), steps=3, seed=0, fence=Fence(str(lease), "token")), 0, 1)
    rank._engine, rank._last_ids, rank._last_off_policy = SimpleNamespace(get_lr=lambda: [0.1]), [4, 5], []
    monkeypatch.setattr(rank_module, "optimizer_step", lambda engine: 1.5)
    assert rank.optimizer_step(1, str(ledger))["grad_norm"] == 1.5
    assert history(tmp_path) == {1: {0: [4, 5]}}
    lease.write_text("another")
    before = (ledger / "rank_0.jsonl").read_bytes()
    with pytest.raises(LeaseLostError):
        rank.optimizer_step(2, str(ledger))
    assert (ledger / "rank_0.jsonl").read_bytes() == before
