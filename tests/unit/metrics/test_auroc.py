"""The area under the ROC curve, against the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.metrics.auroc import auroc


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0, math.inf]), st.booleans()), max_size=12))
def test_auroc_is_the_share_of_pairs_won_with_ties_half(samples: list[tuple[float, bool]]) -> None:
    pairs = [(p > n) + 0.5 * (p == n) for p, yes in samples if yes for n, no in samples if not no]
    scores = np.array([score for score, _ in samples], np.float32)
    result = auroc(scores, np.array([positive for _, positive in samples], bool))
    assert result == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


def test_auroc_refuses_nan_and_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match=r"NaN at \[1\]"):
        auroc(np.array([0.0, math.nan]), np.array([True, False]))
    with pytest.raises(ValueError, match=r"must both be \[N\]"):
        auroc(np.zeros(2), np.ones(3))
