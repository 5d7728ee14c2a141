"""What `topk/...` and `entropy/...` cost: CPU seconds of a micro-batch's forward and backward with them, over those without.

python -m tests.benchmarks.agreement
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import Qwen3Config, Qwen3ForCausalLM

from renio_pipeline.config.schema import Diagnostics
from renio_pipeline.models.student import TokenLogits, micro_batch_loss
from renio_pipeline.objectives import Objective
from renio_pipeline.objectives.jsd import Jsd
from renio_pipeline.objectives.projection import Head
from renio_pipeline.objectives.sampled import Sampled
from renio_pipeline.objectives.top_k_forward_kl import TopKForwardKL
from renio_pipeline.types import FIRST_VERSION, Hidden, Payload, TopK, TrainSample

K = 32
OBJECTIVES: dict[str, Objective] = {"jsd": Jsd(), "top_k_forward_kl": TopKForwardKL(k=K), "sampled": Sampled()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=32768)
    parser.add_argument("--width", type=int, default=288)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=128, help="of each response")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.03125, 1.0])
    args = parser.parse_args()
    torch.manual_seed(0)
    sizes = {"vocab_size": args.vocabulary, "hidden_size": args.width, "intermediate_size": 3 * args.width}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": args.width // 9}
    lm = Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, num_hidden_layers=args.layers, tie_word_embeddings=True))
    model, table = TokenLogits(lm), Table("objective", "share", "CPU seconds without", "with", "ratio")
    for name, objective in OBJECTIVES.items():
        samples, payload = problem(args, objective.payload.kind)
        settings = [None, *(Diagnostics(share=share) for share in args.shares)]
        seconds: list[list[float]] = [[] for _ in settings]
        for turn in range(args.rounds + 1):
            for i in range(len(settings))[:: 1 if turn % 2 else -1]:
                took = measure(model, samples, payload, objective, settings[i], args.vocabulary)
                if turn:  # the first one warms up
                    seconds[i].append(took)
        plain, *others = (statistics.median(values) for values in seconds)
        for share, own in zip(args.shares, others, strict=True):
            table.add_row(name, f"{share:g}", f"{plain:.2f}", f"{own:.2f}", f"{own / plain:.3f}")
    Console(width=100).print(table)


def problem(args: argparse.Namespace, kind: str) -> tuple[list[TrainSample], dict[int, Payload]]:
    """Random tokens, and what a random teacher sends of them."""
    rng = np.random.default_rng(0)
    samples, payload = [], dict[int, Payload]()
    for i in range(args.samples):
        ids = rng.integers(0, args.vocabulary, args.tokens).astype(np.int32)
        logprobs = rng.normal(-4, 1, args.tokens).astype(np.float32)
        samples.append(
            TrainSample(
                sample_id=i,
                prompt_ids=ids[:32],
                response_ids=ids,
                student_logprobs=logprobs,
                teacher_logprobs=logprobs,
                weight=1,
            )
        )
        if kind == "hidden":
            payload[i] = Hidden(values=rng.normal(size=(args.tokens, args.width)).astype(np.float32), version=FIRST_VERSION)
        elif kind == "top_k":
            top = np.argsort(rng.random((args.tokens, 4 * K)), axis=1)[:, :K].astype(np.int32)
            sent = np.log(rng.dirichlet(np.ones(K + 2), args.tokens))[:, : K + 1].astype(np.float32)
            payload[i] = TopK(token_ids=np.concatenate([ids[:, None], top], axis=1), logprobs=sent)
    return samples, payload


def measure(
    model: TokenLogits,
    samples: list[TrainSample],
    payload: dict[int, Payload],
    objective: Objective,
    diagnostics: Diagnostics | None,
    vocabulary: int,
) -> float:
    """CPU seconds: other processes do not lengthen those."""
    model.zero_grad()
    began = time.process_time()
    tokens = sum(len(s.response_ids) for s in samples)
    settings = {"batch_size": len(samples), "batch_tokens": tokens, "temperature": 1.0, "vocab_size": vocabulary}
    head = Head(model.lm.get_output_embeddings().weight.detach())
    micro = micro_batch_loss(
        model, samples, payload, objective=objective, teacher_head=lambda *key: head, diagnostics=diagnostics, **settings
    )
    micro.loss.backward()
    return time.process_time() - began


if __name__ == "__main__":
    main()
