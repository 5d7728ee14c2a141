"""The rate that console and status show."""

from __future__ import annotations

from renio_pipeline.metrics.registry import token_rate


def test_the_rate_is_of_what_is_written_and_of_what_is_trained_on_where_nothing_is() -> None:
    step = {"time/step": 2.0, "tokens/generated": 300.0, "tokens/trained": 500.0}
    assert token_rate(step) == 150
    assert token_rate(step | {"tokens/generated": 0.0}) == 250
    assert token_rate({"time/step": 2.0, "tokens/generated": 0.0}) == 0, "a skipped step trained on nothing"
