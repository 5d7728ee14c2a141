"""Weights by how often the student solves a prompt (PACED, arXiv 2603.11178)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from renio_pipeline.weightings.base import ScoredBatch, State, Weighting, Weights


class Paced(Weighting):
    """PACED's weights (arXiv 2603.11178): p (1 − p), where p is the share of a prompt's responses that are correct; of mean 1.

    A prompt that is always or never solved weighs 0. In a step with no other prompts all weights are 0, and so is its loss.
    """

    type: Literal["paced"] = "paced"
    needs_verdicts: ClassVar[bool] = True

    def check(self, config: Any) -> None:
        if config.samples_per_prompt == 1:
            raise ValueError(
                "weighting paced weighs a prompt by the share p of its responses that are correct, as p (1 - p), and with "
                "samples_per_prompt 1 that is always 0; set samples_per_prompt to 4 or more, and batch_size to a multiple of it"
            )
        if config.filter != "all":
            raise ValueError(
                f"weighting paced compares the correct and the incorrect responses to a prompt, and filter {config.filter} "
                "keeps one kind alone; set filter=all"
            )

    def weigh(self, batch: ScoredBatch, state: State) -> Weights:
        """A prompt on whose responses there is no verdict has no p; its samples weigh 1."""
        known = np.array([verdict is not None for verdict in batch.verdicts], bool)
        correct = np.array([verdict == "correct" for verdict in batch.verdicts], bool)
        _, prompt = np.unique(np.array(batch.row_ids, object).astype(str), return_inverse=True)
        graded = np.bincount(prompt[known], minlength=len(batch) + 1)
        rate = np.bincount(prompt[correct], minlength=len(batch) + 1) / np.maximum(graded, 1)
        raw, has_rate = (rate * (1 - rate))[prompt], graded[prompt] > 0
        mean = raw[has_rate].mean() if has_rate.any() else 0.0
        weights = np.where(has_rate, raw / (mean or 1.0), 1.0)
        return Weights(weights=weights.astype(np.float32))
