"""The least that each stage's work costs, in CPU-seconds: vLLM alone, a bare forward, a bare forward and backward.

Each floor is a process that does nothing else, with as many threads as the stage has in the pipeline, on what a run of the
pipeline wrote: the same prompts and seeds for generation, the same tokens for scoring and training.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.shapes import ROOT

REPEATS = 5
BATCH_TOKENS = (1, 512, 2048)  # of one forward, with its padding; the floor is that of the best
Work = Callable[[int], int]  # BATCH_TOKENS -> tokens that were worked on
Sequences = list[tuple[list[int], list[int]]]  # prompt and response


def measure(stage: str, file: Path, samples: Path, threads: int) -> dict[str, float]:
    """CPU-seconds a token of the stage: of a response's for generation, of prompts and responses for the others."""
    command = [sys.executable, "-m", "tests.benchmarks.stages", stage, str(file), str(samples)]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "",
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }  # fmt: skip
    out = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def _generation(config: Any, prepared: Any, samples: Sequence[dict[str, Any]]) -> Work:
    """vLLM's engine in this process, stepped as fast as it goes."""
    from vllm import EngineArgs, LLMEngine, SamplingParams
    from vllm.sampling_params import RequestOutputKind

    from renio_pipeline.models.info import resolve
    from renio_pipeline.stages.seeds import sample_seed

    engine = LLMEngine.from_engine_args(
        EngineArgs(
            model=resolve(config.student),
            dtype=config.generator.dtype,
            max_model_len=prepared.context,
            enforce_eager=True,
            enable_chunked_prefill=False,
            enable_prefix_caching=False,
            disable_log_stats=True,
            max_logprobs=1,
            distributed_executor_backend="uni",
        ),
        enable_multiprocessing=False,
    )

    def work(batch_tokens: int) -> int:
        for sample, (prompt, _) in zip(samples, _sequences(config, prepared, samples), strict=True):
            params = SamplingParams(
                temperature=config.sampling.temperature,
                seed=sample_seed(config.seed, sample["sample_id"]),
                max_tokens=config.max_response_tokens,
                logprobs=0,
                flat_logprobs=True,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            engine.add_request(str(sample["sample_id"]), {"prompt_token_ids": prompt}, params)
        tokens = 0
        while engine.has_unfinished_requests():
            tokens += sum(len(o.outputs[0].token_ids) for o in engine.step() if o.finished)
        return tokens

    return work


def _scoring(config: Any, prepared: Any, samples: Sequence[dict[str, Any]]) -> Work:
    """The teacher's forward and the log-probabilities of the responses' tokens."""
    import torch

    model = _model(config.teacher_model(), config.teacher.dtype).eval()
    sequences = _sequences(config, prepared, samples)

    @torch.no_grad()
    def work(batch_tokens: int) -> int:
        for batch in _batches(sequences, batch_tokens):
            _logprobs(model, batch)
        return sum(len(p) + len(r) for p, r in sequences)

    return work


def _training(config: Any, prepared: Any, samples: Sequence[dict[str, Any]]) -> Work:
    """The student's forward, the plainest loss, backward; no teacher, no optimizer."""
    model = _model(config.student, config.trainer.dtype).train()
    sequences = _sequences(config, prepared, samples)

    def work(batch_tokens: int) -> int:
        for batch in _batches(sequences, batch_tokens):
            (-_logprobs(model, batch).mean()).backward()
        model.zero_grad()
        return sum(len(p) + len(r) for p, r in sequences)

    return work


def _model(name: str, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    from renio_pipeline.models.info import resolve

    return AutoModelForCausalLM.from_pretrained(resolve(name), dtype=getattr(torch, dtype))


def _logprobs(model: Any, batch: Sequences) -> Any:
    """[N] of the responses' tokens, by a padded forward; only they are projected."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids = pad_sequence([torch.tensor(p + r) for p, r in batch], batch_first=True)
    lengths = torch.tensor([len(p) + len(r) for p, r in batch])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    states = torch.cat([hidden[i, len(p) - 1 : len(p) + len(r) - 1] for i, (p, r) in enumerate(batch)])
    targets = torch.cat([torch.tensor(r) for _, r in batch])
    logits = model.get_output_embeddings()(states)
    return -torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def _batches(sequences: Sequences, batch_tokens: int) -> list[Sequences]:
    """Of similar length, within ``batch_tokens``; a longer one goes alone."""
    batches: list[Sequences] = []
    for pair in sorted(sequences, key=lambda s: -len(s[0]) - len(s[1])):
        if batches and (len(batches[-1]) + 1) * sum(map(len, batches[-1][0])) <= batch_tokens:
            batches[-1].append(pair)
        else:
            batches.append([pair])
    return batches


def _sequences(config: Any, prepared: Any, samples: Sequence[dict[str, Any]]) -> Sequences:
    from renio_pipeline.data.prompts import Cursor

    drawn = Cursor(prepared.prompt_ids, prepared.rows, config).take(1 + max(s["sample_id"] for s in samples))
    return [(drawn[s["sample_id"]].student_ids.tolist(), s["token_ids"]) for s in samples]


STAGES = {"generation": _generation, "scoring": _scoring, "training": _training}


def main() -> None:
    from renio_pipeline.config import load
    from renio_pipeline.preflight import prepare

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("config", type=Path)
    parser.add_argument("samples", type=Path, help="samples/step_*.jsonl of a run of that configuration")
    args = parser.parse_args()
    config = load(args.config)
    samples = [json.loads(line) for line in args.samples.read_text().splitlines()]
    work = STAGES[args.stage](config, prepare(config), samples)
    sizes = BATCH_TOKENS if args.stage != "generation" else (0,)  # vLLM forms its own batches
    best = min(sizes, key=lambda size: _cost(work, size))
    costs = [_cost(work, best) for _ in range(REPEATS)]
    print(json.dumps({"median": statistics.median(costs), "min": min(costs), "max": max(costs)}))


def _cost(work: Work, batch_tokens: int) -> float:
    """CPU-seconds a token."""
    began = time.process_time()
    tokens = work(batch_tokens)
    return (time.process_time() - began) / tokens


if __name__ == "__main__":
    main()
