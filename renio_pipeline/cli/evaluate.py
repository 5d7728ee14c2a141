"""``renio eval``."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from renio_pipeline.cli.common import with_config
from renio_pipeline.config import ConfigError, load
from renio_pipeline.schema import Sync


def register(commands: Any) -> None:
    """Add the command to ``commands``, what ``ArgumentParser.add_subparsers`` returned."""
    text = "accuracy of the student on held-out problems"
    commands.add_parser("eval", parents=[with_config()], help=text, description=text).set_defaults(run=_eval)


def _eval(args: argparse.Namespace) -> int:
    from actors import launch
    from renio_pipeline.evaluate import Evaluation, evaluate
    from renio_pipeline.prompts import held_out_prompts

    config = load(args.config, args.overrides)
    # Nothing is trained, so nothing is sent, not even an adapter, and nobody shares the generators' GPUs.
    config = config.model_copy(update={"sync": Sync(), "placement": "separate"})
    if not config.evaluate.problems:
        raise ConfigError("evaluate.problems: 0 leaves nothing to evaluate; set it to a number of held-out problems")
    prepared = launch.prepare_locally(config)
    with launch.cluster(args.address):
        prepared = launch.check(config, prepared, pools=("generator",))
        prompts = held_out_prompts(prepared.held_out_ids, prepared.held_out)
        temperature = config.evaluate.temperature

        async def go() -> Evaluation:
            async with launch.generators(config, prepared) as generators:
                return await evaluate(generators, prompts, prepared.task, prepared.tokenizer, temperature)

        result = asyncio.run(go())
    print(f"{config.student}: accuracy {result}, sampled at temperature {temperature:g}; {result.response_tokens:.1f} tokens")
    return 0
