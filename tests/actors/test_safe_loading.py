"""Checkpoints whose torch files are not what a trainer writes."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.trainer import safe_loading
from actors.trainer.safe_loading import UnsafeFileError


class Attack:
    """A pickle of it creates a file where it is loaded as code."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("zipped", [True, False], ids=["today's format", "torch's older format"])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, zipped: bool) -> None:
    folder, file = tmp_path / "state", tmp_path / "state/zero_pp_rank_0_optim_states.pt"
    folder.mkdir()
    torch.save({"optimizer": Attack(tmp_path / "run")}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeFileError, match="holds more than tensors"):
        safe_loading.load(file)
    with pytest.raises(UnsafeFileError, match="holds more than tensors"), safe_loading.weights_only(folder):
        torch.load(file, weights_only=False)  # as DeepSpeed's conversion does
    assert not (tmp_path / "run").exists()
    torch.load(file, weights_only=False)
    assert (tmp_path / "run").exists(), "the attack works where nothing holds it back"


def test_what_callers_ask_for_counts_again_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with safe_loading.weights_only(tmp_path):
        assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")
    with pytest.raises(KeyError), safe_loading.weights_only(tmp_path):
        raise KeyError
    assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "0"


def packed(path: Path) -> None:
    """The file's own records, compressed: 100 MB of zeros in 100 kB."""
    torch.save({"weight": torch.zeros(25_000_000)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    assert path.stat().st_size < 200_000


def test_a_file_that_unpacks_to_more_than_its_size_is_not_read(tmp_path: Path) -> None:
    packed(tmp_path / "rank_0.pt")
    with pytest.raises(UnsafeFileError, match=r"rank_0\.pt would unpack to 100\d+ bytes"):
        safe_loading.load(tmp_path / "rank_0.pt")
    with pytest.raises(UnsafeFileError, match="resume from another checkpoint"), safe_loading.weights_only(tmp_path):
        raise AssertionError("it was found too late")


def test_what_a_trainer_writes_is_read(tmp_path: Path) -> None:
    torch.save({"weight": torch.arange(1000.0), "step": 3, "names": ["a"]}, tmp_path / "a.pt")
    assert torch.equal(safe_loading.load(tmp_path / "a.pt")["weight"], torch.arange(1000.0))
