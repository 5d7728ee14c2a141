"""What makes signals those of another teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from renio_pipeline.recordings.keys import ENDS, model_print
from renio_pipeline.recordings.manifest import RecordedTeacher

LAYERS, WIDTH = 6, 256


def model(folder: Path, **changed: float) -> str | None:
    """The print of a model whose file begins with embeddings and ends with a norm and an output head, larger than ``ENDS``.

    ``changed``: what is added to the weights of a kind.
    """
    rng = np.random.default_rng(0)
    shapes = {"a_embed": (1024, WIDTH), "z_head": (1024, WIDTH), "z_norm": (WIDTH,)}
    shapes |= {f"layer_{i}_{kind}": (4 * WIDTH, WIDTH) for i in range(LAYERS) for kind in ("mlp", "attention")}
    weights = {name: rng.random(shape, np.float32) for name, shape in sorted(shapes.items())}
    assert all(w.nbytes > ENDS for name, w in weights.items() if name != "z_norm")
    for kind, amount in changed.items():
        weights |= {name: w + np.float32(amount) for name, w in weights.items() if name.endswith(kind)}
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    return model_print(str(folder))


@pytest.mark.parametrize("kind", ["mlp", "attention", "embed", "norm", "head"])
def test_weights_of_any_kind_make_another_model(tmp_path: Path, kind: str) -> None:
    first = model(tmp_path / "m")
    assert first is not None
    assert model(tmp_path / "m") == first
    assert model(tmp_path / "m", **{kind: 0.5}) != first


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "v2"},
        {"adapter": "a"},
        {"dtype": "bfloat16"},
        {"engine": {"quantization": "fp8"}},
        {"end_tokens": {"a": "b"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_changes_a_teachers_signals_is_in_its_identity(changes: dict[str, Any]) -> None:
    same: dict[str, Any] = {"model": "T", "version": "v1"}
    assert RecordedTeacher(**same | changes).identity != RecordedTeacher(**same).identity
