"""An AdamW that goes on from a checkpoint updates as it was built to, not as the run that wrote it did."""

from __future__ import annotations

import pytest
import torch

from actors.trainer.rank_checkpoint import update_as_built


def gone_on(saved_fused: bool | None) -> torch.optim.AdamW:
    """An optimizer with the state of another one, whose step counts are on the host, as a checkpoint brings them."""
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizer = torch.optim.AdamW([weights[0]], fused=saved_fused)
    weights[0].grad = torch.ones(3)
    optimizer.step()
    fresh = torch.optim.AdamW([weights[1]])
    fresh.load_state_dict(optimizer.state_dict())
    weights[1].grad = torch.ones(3)
    return fresh


@pytest.mark.parametrize("saved", [True, None])
@pytest.mark.parametrize("built", [True, None])
def test_the_choice_is_that_of_this_run_and_the_next_step_is_the_second(saved: bool | None, built: bool | None) -> None:
    optimizer = gone_on(saved)
    update_as_built(optimizer, built)
    assert optimizer.param_groups[0]["fused"] is built
    optimizer.step()
    (state,) = optimizer.state.values()
    assert float(state["step"]) == 2


def test_step_counts_are_on_the_device_of_the_moments_for_a_fused_update_alone() -> None:
    optimizer = gone_on(None)
    (state,) = optimizer.state.values()
    state["exp_avg"] = state["exp_avg"].to("meta")  # in the place of a GPU
    update_as_built(optimizer, True)
    assert state["step"].device.type == "meta"
    state["step"] = 3.0  # as DeepSpeed's universal checkpoints may have it
    update_as_built(optimizer, None)
    assert (state["step"].device.type, float(state["step"])) == ("cpu", 3.0)
