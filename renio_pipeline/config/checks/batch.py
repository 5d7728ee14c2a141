"""The batch and its numbers, what is kept of it, and what is told of it."""

from __future__ import annotations

from renio_pipeline.config import schema
from renio_pipeline.config.checks.owned import refuse_owned
from renio_pipeline.config.run_config import RunConfig


def check_batch(c: RunConfig) -> None:
    """Sizes, temperatures and warm-up. Each check here raises ValueError."""
    if c.batch_size % c.samples_per_prompt:
        raise ValueError(f"batch_size ({c.batch_size}) must be a multiple of samples_per_prompt ({c.samples_per_prompt})")
    for key, given in (("sampling.temperature", c.sampling.temperature), ("evaluate.temperature", c.evaluate.temperature)):
        if given / c.temperature > 2:  # vLLM's own bound, of what is left when its logits are divided by `temperature` already
            raise ValueError(f"{key} ({given}) may be at most twice temperature ({c.temperature}); lower it")
    for name in ("presence_penalty", "frequency_penalty"):
        if abs(given := getattr(c.sampling, name)) / c.temperature > 2:  # as above
            raise ValueError(f"sampling.{name} ({given}) may be at most twice temperature ({c.temperature}); lower it")
    if c.trainer.warmup_steps >= c.steps:
        raise ValueError(f"trainer.warmup_steps ({c.trainer.warmup_steps}) must be below steps ({c.steps})")
    refuse_owned("trainer.deepspeed", c.trainer.deepspeed, schema.OWNED_DEEPSPEED_KEYS)


def check_filter(c: RunConfig) -> None:
    """``unfinished`` and the filter that it belongs to."""
    if c.unfinished and c.filter != "incorrect":
        why = "filter all keeps them anyway" if c.filter == "all" else "a response without a final answer is never correct"
        raise ValueError(f"unfinished: true goes with filter incorrect alone: {why}; set filter=incorrect, or leave it out")


def check_endpoint(c: RunConfig) -> None:
    """``metrics_discovery`` and the port that it tells of."""
    if c.metrics_discovery is not None and c.metrics_port is None:
        raise ValueError("metrics_discovery: there is no endpoint to be found without metrics_port; set it (0: any free port)")
