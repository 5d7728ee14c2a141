"""Messages packed in one go."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import ray

from actors.parcel import Parcel, pack, unpack
from renio_pipeline.types import ScoreRequest


def request(sample_id: int) -> ScoreRequest:
    return ScoreRequest(
        sample_id=sample_id, prompt_ids=np.arange(3, dtype=np.int32), response_ids=np.arange(sample_id, dtype=np.int32)
    )


def test_what_is_packed_comes_out_again_and_is_the_receivers_own() -> None:
    sent = [request(n) for n in range(4)]
    for got in (unpack(pack(sent)), pickle.loads(pickle.dumps(Parcel(sent)))):
        assert type(got) is list
        for a, b in zip(got, sent, strict=True):
            assert (a.sample_id, a.prompt_ids.tolist(), a.response_ids.tolist()) == (
                b.sample_id, b.prompt_ids.tolist(), b.response_ids.tolist(),
            )  # fmt: skip
            a.prompt_ids[0] = 7


def test_a_reference_is_refused_wherever_it_is() -> None:
    """Its receiver would wait for it for ever."""
    reference = ray.ObjectRef(bytes(28))
    for message in (reference, [{"payload": reference}], Parcel([[reference]])):
        with pytest.raises(TypeError, match="cannot go into a parcel"):
            pack(message)
    with pytest.raises(TypeError, match="cannot go into a parcel"):
        pickle.dumps(Parcel([reference]))
