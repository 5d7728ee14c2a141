"""Memory and time of the chunked losses beside naive ones on whole logits, on this machine's CPU.

Each memory figure is a process of its own: peak resident size above weights, hidden states and their gradients. The naive
loss is measured at two sizes, and its need at the full size follows, since it is a constant and a share per token.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from renio_pipeline.divergence import generalized_jsd, top_k_forward_kl, top_k_support
from renio_pipeline.objectives.full_vocabulary import full_vocabulary_loss
from renio_pipeline.objectives.projection import Head
from renio_pipeline.objectives.token_loss import token_loss

TEMPERATURE, CLIP, TOP_K = 1.1, 0.05, 64
MEMORY_LIMIT, TIME_LIMIT = 0.1, 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loss", choices=LOSSES, default="exact")
    parser.add_argument("--tokens", type=int, default=4096, help="N of the memory figures")
    parser.add_argument("--timed-tokens", type=int, default=512)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[32768, 151936], help="timed; the last one weighed")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--beta", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--weigh", nargs=3, metavar=("KIND", "N", "V"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.weigh:
        kind, tokens, vocabulary = args.weigh
        print(extra_bytes(kind, int(tokens), int(vocabulary), args))
        return
    report = {"memory": memory(args), "time": [timing(vocabulary, args) for vocabulary in args.vocabularies]}
    show(report, args)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


Problem = tuple[list[Tensor], dict[str, Callable[[], Tensor]]]  # leaves, and the losses of them by name


def exact(tokens: int, vocabulary: int, args: argparse.Namespace) -> Problem:
    hidden, weight, targets, coefficients = student(tokens, vocabulary, args)
    teacher_hidden, teacher_weight = torch.randn(tokens, args.width), head(vocabulary, args)
    options: dict[str, Any] = {"beta": args.beta, "temperature": TEMPERATURE, "entry_clip": CLIP}

    def chunked() -> Tensor:
        heads = (hidden, Head(weight), teacher_hidden, Head(teacher_weight))
        return full_vocabulary_loss(*heads, targets, coefficients, vocab_size=vocabulary, **options).loss

    def naive() -> Tensor:
        per_token = generalized_jsd(hidden @ weight.T, teacher_hidden @ teacher_weight.T, **options)
        return (coefficients * per_token).sum()

    return [hidden, weight], {"naive": naive, "chunked": chunked}


def top_k(tokens: int, vocabulary: int, args: argparse.Namespace) -> Problem:
    hidden, weight, targets, coefficients = student(tokens, vocabulary, args)
    ids = torch.cat([targets[:, None], torch.randint(vocabulary, (tokens, TOP_K))], 1)
    teacher, support = torch.log_softmax(torch.randn(tokens, TOP_K + 2), -1)[:, 1:], top_k_support(ids)

    def per_token(logprobs: Tensor, rows: slice) -> Tensor:
        return top_k_forward_kl(logprobs, teacher[rows], support[rows], entry_clip=CLIP)

    def chunked() -> Tensor:
        return token_loss(
            hidden, Head(weight), ids, coefficients, per_token, temperature=TEMPERATURE, vocab_size=vocabulary
        ).loss

    def naive() -> Tensor:
        logprobs = torch.log_softmax(hidden @ weight.T / TEMPERATURE, -1).gather(1, ids)
        return (coefficients * per_token(logprobs, slice(None))).sum()

    return [hidden, weight], {"naive": naive, "chunked": chunked}


LOSSES = {"exact": exact, "top_k": top_k}
WEIGHED = {"exact": 512, "top_k": 2048}  # tokens, and twice as many: the naive loss's [N, V] must outweigh the head's gradient


def student(tokens: int, vocabulary: int, args: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden, weight = torch.randn(tokens, args.width).requires_grad_(), head(vocabulary, args).requires_grad_()
    return hidden, weight, torch.randint(vocabulary, (tokens,)), torch.full((tokens,), 1 / tokens)


def head(vocabulary: int, args: argparse.Namespace) -> Tensor:
    return torch.randn(vocabulary, args.width).mul_(2 * args.width**-0.5)


def extra_bytes(kind: str, tokens: int, vocabulary: int, args: argparse.Namespace) -> int:
    leaves, by_name = LOSSES[args.loss](tokens, vocabulary, args)
    small = LOSSES[args.loss](2, 1000, args)[1]
    small[kind]().backward()  # threads and libraries have their own first-time memory
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    by_name[kind]().backward()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return peak - before - sum(leaf.numel() * leaf.element_size() for leaf in leaves)


def memory(args: argparse.Namespace) -> dict[str, float]:
    vocabulary, few = args.vocabularies[-1], min(WEIGHED[args.loss], args.tokens // 2)

    def weigh(kind: str, tokens: int) -> int:
        command = [sys.executable, __file__, "--weigh", kind, str(tokens), str(vocabulary)]
        command += ["--width", str(args.width), "--beta", str(args.beta), "--loss", args.loss]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    less, more = weigh("naive", few), weigh("naive", 2 * few)
    per_token = (more - less) / few
    naive = less + (args.tokens - few) * per_token
    chunked = weigh("chunked", args.tokens)
    figures = {"naive bytes at full size": naive, "naive bytes per token": per_token, f"naive bytes at {2 * few} tokens": more}
    return figures | {"chunked bytes": chunked, "ratio": chunked / naive, "limit": MEMORY_LIMIT}


def timing(vocabulary: int, args: argparse.Namespace) -> dict[str, Any]:
    """Forward and backward of both, taking turns at going first. CPU seconds too: other processes do not lengthen those."""
    leaves, by_name = LOSSES[args.loss](args.timed_tokens, vocabulary, args)
    wall: dict[str, list[float]] = {name: [] for name in by_name}
    cpu: dict[str, list[float]] = {name: [] for name in by_name}
    for turn in range(args.rounds + 1):
        for name in list(by_name)[:: 1 if turn % 2 else -1]:
            for leaf in leaves:
                leaf.grad = None
            start, start_cpu = time.perf_counter(), time.process_time()
            by_name[name]().backward()
            if turn:  # the first one warms up
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - start_cpu)
    row: dict[str, Any] = {"tokens": args.timed_tokens, "vocabulary": vocabulary, "limit": TIME_LIMIT}
    for clock, seconds in (("wall", wall), ("cpu", cpu)):
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        row |= {f"{clock} seconds": seconds, f"{clock} ratio": medians["chunked"] / medians["naive"]}
    return row


def show(report: dict[str, Any], args: argparse.Namespace) -> None:
    gib, figures = 2**30, report["memory"]
    kind = f"exact, beta {args.beta:g}" if args.loss == "exact" else f"top {TOP_K} with tail"
    title = f"{kind}; H {args.width}, float32, {torch.get_num_threads()} threads"
    table = Table("figure", "naive", "chunked", "ratio", "limit", title=title)
    how = " (extrapolated)" if 2 * WEIGHED[args.loss] < args.tokens else ""
    values = (f"{figures['naive bytes at full size'] / gib:.2f}{how}", f"{figures['chunked bytes'] / gib:.2f}")
    name = f"extra GiB, N {args.tokens}, V {args.vocabularies[-1]}"
    table.add_row(name, *values, f"{figures['ratio']:.4f}", f"{MEMORY_LIMIT:g}")
    for row in report["time"]:
        for clock in ("wall", "cpu"):
            seconds = row[f"{clock} seconds"]
            cells = [f"{statistics.median(s):.2f} ({min(s):.2f} to {max(s):.2f})" for s in seconds.values()]
            name = f"{clock} seconds, N {row['tokens']}, V {row['vocabulary']}"
            table.add_row(name, *cells, f"{row[f'{clock} ratio']:.2f}", f"{TIME_LIMIT:g}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
