"""TRL's steps, a line each, as ``tests.benchmarks.sequential`` writes them: ``python -m tests.benchmarks.peers.trl_steps``."""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any, get_args

from renio_pipeline.config import load
from tests.benchmarks.peers import patches, trl_trainer

ALLOWED_GAP = 1e-3  # nats, in float32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("out", type=Path)
    parser.add_argument("--variant", choices=get_args(trl_trainer.Variant), required=True)
    args = parser.parse_args()
    config = load(args.config)
    trainer = trl_trainer.make(config, args.out.parent / "trl", args.variant)
    steps: list[dict[str, Any]] = []
    trainer.add_callback(_clock(trainer, config.batch_size, steps))
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    lines = [step | {"loss": loss} for step, loss in zip(steps, losses, strict=True)]
    args.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if args.variant == "patched" and (gap := patches.largest_gap(trainer)) > ALLOWED_GAP:
        raise RuntimeError(f"vLLM's log-probabilities are {gap:.3g} off the student's: its weights are others")


def _clock(trainer: Any, samples: int, steps: list[dict[str, Any]]) -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.mark = time.perf_counter(), time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            now = time.perf_counter(), time.process_time()
            steps.append(
                {
                    "step": len(steps) + 1,
                    "samples": samples,
                    "tokens": trainer.generated_tokens,
                    "seconds": now[0] - self.mark[0],
                    "cpu": now[1] - self.mark[1],
                    "generate": trainer.generate_seconds,
                    "ended": time.time(),
                    "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                }
            )
            self.mark = now

    return Clock()


if __name__ == "__main__":
    main()
