"""The exact loss over its matmul floor, beside others; its exactness; the losses of few entries."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from renio_pipeline.objectives import full_vocabulary
from renio_pipeline.objectives.projection import Head
from tests.benchmarks.gpu.bench import GIB, Bench
from tests.benchmarks.gpu.problem import Problem, without_kernel

CASES: dict[str, dict[str, Any]] = {"kl": {"beta": 0.0}, "kl clip": {"beta": 0.0, "entry_clip": 0.05}, "jsd": {"beta": 0.5}}


def loss(bench: Bench) -> None:
    """Extra GiB: above inputs, and above the gradients that are left."""
    for tokens in bench.sizes.tokens:
        problem = Problem(bench, tokens)
        floor = bench.cost(problem.floor())
        bench.record(f"loss N {tokens}", "matmul floor", floor)
        first = tokens == bench.sizes.tokens[0]
        for case in CASES if first else ("kl", "kl clip"):
            compare(bench, problem, case, floor["ms"])
        if first:
            sweep(bench, problem, floor["ms"])
        del problem


def compare(bench: Bench, problem: Problem, case: str, floor: float) -> None:
    options, section = CASES[case], f"loss N {problem.tokens}"
    left = sum(x.numel() * x.element_size() for x in (problem.hidden, problem.weight)) / GIB

    def measure(name: str, loss: Callable[..., Tensor], repeats: int | None = None) -> None:
        with bench.section(f"{section} {name} {case}"):
            cost = bench.cost(problem.backward(lambda: loss(**options)), repeats)
            bench.record(section, f"{name}, {case}", cost | {"gib": cost["gib"] - left}, floor)

    measure("ours", problem.ours)
    with without_kernel():
        measure("ours without the kernel", problem.ours, 5)
    measure("naive", problem.naive, 5)
    if "entry_clip" not in options:  # liger-kernel has none
        measure("liger", problem.liger, 5)
        measure("liger_chunked", problem.liger_chunked)


def compiled(bench: Bench) -> None:
    """The naive loss by torch.compile."""
    for tokens in bench.sizes.tokens:
        problem = Problem(bench, tokens)
        floor = bench.cost(problem.floor(), 5)["ms"]
        left = sum(x.numel() * x.element_size() for x in (problem.hidden, problem.weight)) / GIB
        for case in ("kl", "jsd") if tokens == bench.sizes.tokens[0] else ("kl",):
            naive = torch.compile(partial(problem.naive, **CASES[case]), dynamic=False)
            with bench.section(f"compiled {tokens} {case}"):
                cost = bench.cost(problem.backward(naive), 5)
                bench.record(f"loss N {tokens}", f"naive, compiled, {case}", cost | {"gib": cost["gib"] - left}, floor)
        del problem


def sweep(bench: Bench, problem: Problem, floor: float) -> None:
    """Tokens of a chunk, and how many chunks' gradients are held at once."""
    usual = full_vocabulary.GROUP
    for chunk, group in ((128, 8), (256, 1), (256, 2), (256, 4), (256, 8), (512, 1), (512, 2), (512, 4), (1024, 1), (1024, 2)):
        full_vocabulary.GROUP = group
        with bench.section(f"chunk {chunk} {group}"):
            cost = bench.cost(problem.backward(lambda: problem.ours(chunk, **CASES["kl clip"])), repeats=5)  # noqa: B023
            bench.record("chunks", f"{chunk} tokens x {group}", cost, floor)
    full_vocabulary.GROUP = usual


def exactness(bench: Bench) -> None:
    """Against float32 logits and autograd, from the same bfloat16 hidden states and heads, on few tokens."""
    torch.backends.cuda.matmul.allow_tf32 = False
    problem = Problem(bench, min(512, bench.sizes.tokens[0]))
    methods: dict[str, Any] = {
        "ours": problem.ours,
        "naive": problem.naive,
        "liger": problem.liger,
        "liger_chunked": problem.liger_chunked,
    }
    for case, options in CASES.items():
        wanted = problem.naive(torch.float32, **options)
        expected = problem.gradients(wanted)
        for name, method in methods.items():
            if case == "kl clip" and name.startswith("liger"):
                continue
            with bench.section(f"exactness {name} {case}"):
                found = method(**options)
                errors = [((a - b).norm() / b.norm()).item() for a, b in zip(problem.gradients(found), expected, strict=True)]
                cost = {"value": found.item(), "exact": wanted.item(), "d hidden": errors[0], "d weight": errors[1]}
                bench.record("relative error", f"{name}, {case}", cost)


def token_losses(bench: Bench) -> None:
    """The losses that look at few of the student's log-probabilities, chunk by chunk and on whole logits."""
    from renio_pipeline.divergence import top_k_forward_kl
    from renio_pipeline.loss import sampled_token_loss
    from renio_pipeline.objectives.token_loss import token_loss

    problem = Problem(bench, bench.sizes.tokens[0])
    ids = torch.randint(problem.vocabulary, (problem.tokens, 65), device=bench.device)
    teacher = torch.log_softmax(torch.randn(problem.tokens, 66, device=bench.device), -1)[:, :-1]

    def top_k(logprobs: Tensor, rows: slice) -> Tensor:
        return top_k_forward_kl(logprobs, teacher[rows], torch.ones_like(teacher[rows], dtype=torch.bool))

    def sampled(logprobs: Tensor, rows: slice) -> Tensor:
        return sampled_token_loss(logprobs[:, 0], teacher[rows, 0])

    def ours(asked: Tensor, loss: Any) -> Tensor:
        head, coefficients = Head(problem.weight), problem.coefficients
        return token_loss(problem.hidden, head, asked, coefficients, loss, vocab_size=problem.vocabulary).loss

    def naive(asked: Tensor, loss: Any) -> Tensor:
        logprobs = torch.log_softmax((problem.hidden @ problem.weight.T).float(), -1).gather(1, asked)
        return (problem.coefficients * loss(logprobs, slice(None))).sum()

    floor = bench.cost(problem.floor(teacher=False))
    bench.record("token losses", "matmul floor", floor)
    for name, loss, asked in (("top-k", top_k, ids), ("sampled", sampled, ids[:, :1])):
        for how in (ours, naive):
            with bench.section(f"{name} {how.__name__}"):
                cost = bench.cost(problem.backward(lambda: how(asked, loss)))  # noqa: B023
                bench.record("token losses", f"{how.__name__}, {name}", cost, floor["ms"])
