"""Messages packed in one go."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import ray

from actors.packed_messages import PackedList, pack, unpack
from renio_pipeline.types import ScoreRequest


def request(sample_id: int) -> ScoreRequest:
    return ScoreRequest(
        sample_id=sample_id, prompt_ids=np.arange(3, dtype=np.int32), response_ids=np.arange(sample_id, dtype=np.int32)
    )


def test_what_is_packed_comes_out_again_and_is_the_receivers_own() -> None:
    sent = [request(n) for n in range(4)]
    for got in (unpack(pack(sent)), pickle.loads(pickle.dumps(PackedList(sent)))):
        assert type(got) is list
        for a, b in zip(got, sent, strict=True):
            assert (a.sample_id, a.prompt_ids.tolist(), a.response_ids.tolist()) == (
                b.sample_id,
                b.prompt_ids.tolist(),
                b.response_ids.tolist(),
            )
            a.prompt_ids[0] = 7


def test_a_reference_is_not_packed_where_ray_would_not_see_it() -> None:
    """Its receiver would wait for it for ever."""
    reference = ray.ObjectRef(bytes(28))
    for message in (reference, [{"payload": reference}], [[reference]]):
        with pytest.raises(TypeError, match="cannot be packed"):
            pack(message)


def test_a_parcels_references_are_ray_s_to_pickle_and_stand_where_they_stood() -> None:
    """Stand-ins, for Ray's own cannot be pickled here: each in its place, the same one for the same one, seen once each."""
    one, other = ray.ObjectRef(bytes(28)), ray.ObjectRef(b"x" * 28)
    rebuild, (packed, references) = PackedList([[one, {"payload": other}], one, 7]).__reduce__()
    assert references == [one, other]
    assert bytes(28) not in packed
    assert rebuild(packed, ["first", "second"]) == [["first", {"payload": "second"}], "first", 7]
