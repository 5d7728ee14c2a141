"""The exact loss, the torch teacher and the trainer's pass on one GPU, at Qwen3-1.7B's shapes with random weights.

Each time is a median over the matmul floor: the seconds of exactly the matrix products that the work needs, whole and in
bfloat16, measured in the same process. Needs torch and transformers; liger-kernel is compared where it is installed.
`--device cpu --tiny` goes through all of it in seconds, and says nothing about time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from renio_pipeline import full_vocabulary
from renio_pipeline.divergence import generalized_jsd
from renio_pipeline.full_vocabulary import Head, full_vocabulary_loss

GIB = 2**30
Work = Callable[[], Any]


@dataclass(frozen=True)
class Sizes:
    tokens: tuple[int, ...] = (4096, 8192)
    vocabulary: int = 151936
    hidden: int = 2048
    teacher_hidden: int = 4096
    intermediate: int = 6144
    layers: int = 28
    heads: int = 16
    kv_heads: int = 8
    head_dim: int = 128
    samples: int = 64
    longest: int = 4096
    micro_batch_tokens: int = 16384
    repeats: int = 10


TINY = Sizes((48, 64), 1000, 32, 48, 64, 2, 2, 1, 16, 12, 60, 128, 2)


class Bench:
    def __init__(self, sizes: Sizes, device: str) -> None:
        self.sizes, self.device = sizes, device
        self.report: dict[str, Any] = {"device": device_name(device), "torch": torch.__version__, "sizes": vars(sizes)}
        self.rows: list[str] = []

    def draw(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, device=self.device, dtype=torch.float32).mul_(scale).bfloat16()

    def sync(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def cost(self, work: Work, repeats: int | None = None) -> dict[str, float]:
        """Median, least and most milliseconds, and the peak of extra GiB, of work that leaves nothing new behind."""
        work()
        self.sync()
        before = 0
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        ms = []
        for _ in range(repeats or self.sizes.repeats):
            self.sync()
            start = time.perf_counter()
            work()
            self.sync()
            ms.append(1e3 * (time.perf_counter() - start))
        memory = (torch.cuda.max_memory_allocated() - before) / GIB if self.device == "cuda" else float("nan")
        return {"ms": statistics.median(ms), "least": min(ms), "most": max(ms), "gib": memory}

    def record(self, section: str, name: str, cost: dict[str, Any], floor: float | None = None) -> None:
        if floor is not None:
            cost["over_floor"] = cost["ms"] / floor
        self.report.setdefault(section, {})[name] = cost
        numbers = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in cost.items())
        self.rows.append(f"{section:<28} {name:<34} {numbers}")
        print(f"[{time.perf_counter() - STARTED:6.1f} s] {self.rows[-1]}", flush=True)

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """An error is recorded, and the next section goes on."""
        try:
            yield
        except Exception as error:
            self.report.setdefault("errors", {})[name] = traceback.format_exc()[-3000:]
            self.rows.append(f"{name:<28} failed: {type(error).__name__}: {str(error)[:150]}")
            print(self.rows[-1], flush=True)
        finally:
            if self.device == "cuda":
                torch.cuda.empty_cache()


STARTED = time.perf_counter()


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


class Problem:
    """Random hidden states and heads; the student's require gradients."""

    def __init__(self, bench: Bench, tokens: int) -> None:
        s = bench.sizes
        torch.manual_seed(0)
        self.bench, self.tokens, self.vocabulary = bench, tokens, s.vocabulary
        self.hidden = bench.draw(tokens, s.hidden).requires_grad_()
        self.weight = bench.draw(s.vocabulary, s.hidden, scale=2 * s.hidden**-0.5).requires_grad_()
        self.teacher_hidden = bench.draw(tokens, s.teacher_hidden)
        self.teacher_weight = bench.draw(s.vocabulary, s.teacher_hidden, scale=2 * s.teacher_hidden**-0.5)
        self.targets = torch.randint(s.vocabulary, (tokens,), device=bench.device)
        self.coefficients = torch.full((tokens,), 1 / tokens, device=bench.device)

    def ours(self, chunk_tokens: int | None = None, **options: Any) -> Tensor:
        heads = (self.hidden, Head(self.weight), self.teacher_hidden, Head(self.teacher_weight))
        return full_vocabulary_loss(
            *heads, self.targets, self.coefficients, vocab_size=self.vocabulary, chunk_tokens=chunk_tokens, **options
        ).loss

    def naive(self, dtype: torch.dtype = torch.bfloat16, **options: Any) -> Tensor:
        student = self.hidden.to(dtype) @ self.weight.to(dtype).T
        with torch.no_grad():
            teacher = self.teacher_hidden.to(dtype) @ self.teacher_weight.to(dtype).T
        return (self.coefficients * generalized_jsd(student, teacher, **options)).sum()

    def liger(self, **options: Any) -> Tensor:
        from liger_kernel.transformers.fused_linear_jsd import LigerFusedLinearJSD

        layer = LigerFusedLinearJSD(jsd_beta=options["beta"], accum_dtype=torch.float32)
        return layer(self.hidden, self.weight, self.teacher_hidden, self.teacher_weight, None)

    def liger_chunked(self, **options: Any) -> Tensor:
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

        compiled = self.bench.device == "cuda"
        layer = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=options["beta"], compiled=compiled)
        return layer(self.hidden, self.weight, self.teacher_hidden, self.teacher_weight, self.targets)

    def backward(self, loss: Callable[[], Tensor]) -> Work:
        """Forward and backward. Gradients are dropped at its end: what they take counts as extra for all alike."""

        def work() -> None:
            loss().backward()
            self.hidden.grad = self.weight.grad = None

        return work

    def gradients(self, loss: Tensor) -> tuple[Tensor, ...]:
        return tuple(g.float() for g in torch.autograd.grad(loss, (self.hidden, self.weight)))

    def floor(self, teacher: bool = True) -> Work:
        grad = self.bench.draw(self.tokens, self.vocabulary)
        hidden, weight = self.hidden.detach(), self.weight.detach()

        def work() -> None:
            _ = hidden @ weight.T
            if teacher:
                _ = self.teacher_hidden @ self.teacher_weight.T
            _, _ = grad @ weight, grad.T @ hidden

        return work


@contextmanager
def without_kernel() -> Iterator[None]:
    """The chunked loss by torch's own operations."""
    kernels = full_vocabulary._kernels
    full_vocabulary._kernels = lambda: None  # type: ignore[assignment]
    try:
        yield
    finally:
        full_vocabulary._kernels = kernels


CASES: dict[str, dict[str, Any]] = {
    "kl": {"beta": 0.0}, "kl clip": {"beta": 0.0, "entry_clip": 0.05}, "jsd": {"beta": 0.5},
}  # fmt: skip


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


def kernel(bench: Bench) -> None:
    """The kernel alone, over the time that its least traffic takes: both logits read once, the gradient written once."""
    from renio_pipeline import fused

    C, V = (1024, bench.sizes.vocabulary) if bench.device == "cuda" else (4, 100)
    x, y = torch.randn(C, V, device=bench.device), torch.randn(C, V, device=bench.device)
    grad, half = torch.empty_like(x, dtype=torch.bfloat16), torch.empty_like(x, dtype=torch.bfloat16)
    targets = torch.zeros(C, dtype=torch.long, device=bench.device)
    factors, out = torch.ones(C, device=bench.device), [torch.empty(C, device=bench.device) for _ in range(3)]
    once = bench.cost(lambda: half.copy_(x))["ms"] / 6 * 10
    bench.record("kernel", "traffic once", {"ms": once})
    usual = fused.BLOCK, fused.WARPS
    for beta in (0.0, 0.5):
        for block, warps in ((2048, 4), (4096, 8), (4096, 16)):
            fused.BLOCK, fused.WARPS = block, warps
            with bench.section(f"kernel {block} {warps}"):
                cost = bench.cost(
                    lambda: fused.divergence_and_gradient(
                        x, y, targets, factors, scales=(1.0, 1.0), beta=beta, entry_clip=0.05, token_clip=None,  # noqa: B023
                        gradient=grad, out=out,
                    )
                )  # fmt: skip
                bench.record("kernel", f"beta {beta} block {block} warps {warps}", cost, once)
    fused.BLOCK, fused.WARPS = usual


def exactness(bench: Bench) -> None:
    """Against float32 logits and autograd, from the same bfloat16 hidden states and heads, on few tokens."""
    torch.backends.cuda.matmul.allow_tf32 = False
    problem = Problem(bench, min(512, bench.sizes.tokens[0]))
    methods: dict[str, Any] = {
        "ours": problem.ours, "naive": problem.naive, "liger": problem.liger, "liger_chunked": problem.liger_chunked,
    }  # fmt: skip
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
    """The losses that look at few of the student's log-probabilities, as the trainer computes them."""
    from renio_pipeline.divergence import top_k_forward_kl
    from renio_pipeline.loss import sampled_token_loss
    from renio_pipeline.student import response_logprobs

    problem = Problem(bench, bench.sizes.tokens[0])
    K = 64
    ids = torch.randint(problem.vocabulary, (problem.tokens, K + 1), device=bench.device)
    teacher = torch.log_softmax(torch.randn(problem.tokens, K + 2, device=bench.device), -1)[:, :-1]

    def logprobs() -> Tensor:
        logits = problem.hidden @ problem.weight.T
        return response_logprobs(logits, temperature=1.0, vocab_size=problem.vocabulary).gather(1, ids)

    def top_k() -> Tensor:
        return top_k_forward_kl(logprobs(), teacher, torch.ones_like(ids, dtype=torch.bool)).mean()

    def sampled() -> Tensor:
        return sampled_token_loss(logprobs()[:, :1], teacher[:, :1]).mean()

    floor = bench.cost(problem.floor(teacher=False))
    bench.record("token losses", "matmul floor", floor)
    bench.record("token losses", "top-k", bench.cost(problem.backward(top_k)), floor["ms"])
    bench.record("token losses", "sampled", bench.cost(problem.backward(sampled)), floor["ms"])


def model(bench: Bench) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    s = bench.sizes
    config = Qwen3Config(
        vocab_size=s.vocabulary, hidden_size=s.hidden, intermediate_size=s.intermediate, num_hidden_layers=s.layers,
        num_attention_heads=s.heads, num_key_value_heads=s.kv_heads, head_dim=s.head_dim, tie_word_embeddings=True,
        max_position_embeddings=40960,
    )  # fmt: skip
    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(bench.device):
            return Qwen3ForCausalLM(config)
    finally:
        torch.set_default_dtype(usual)


def long_tailed(bench: Bench) -> list[tuple[int, int]]:
    """Tokens of prompts and responses: log-normal, mean about a fifth of the longest."""
    rng = np.random.default_rng(0)
    longest = bench.sizes.longest
    lengths = np.minimum(rng.lognormal(np.log(longest / 5) - 0.5, 1.0, bench.sizes.samples), longest).astype(int)
    prompts = rng.integers(longest // 40 + 1, longest // 16 + 2, bench.sizes.samples)
    return [(int(p), max(1, int(n))) for p, n in zip(prompts, lengths, strict=True)]


def layers_floor(bench: Bench, tokens: int, rows: int) -> Work:
    """The linear layers' products for `tokens` tokens, `rows` at a time."""
    s = bench.sizes
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    shapes = [(s.hidden, q), (s.hidden, kv), (s.hidden, kv), (q, s.hidden)]
    shapes += [(s.hidden, s.intermediate)] * 2 + [(s.intermediate, s.hidden)]
    pairs = [(bench.draw(min(rows, tokens), i), bench.draw(o, i)) for i, o in shapes]
    times = s.layers * max(1, round(tokens / rows))

    def work() -> None:
        for _ in range(times):
            for x, weight in pairs:
                _ = x @ weight.T

    return work


def head_floor(bench: Bench, tokens: int) -> Work:
    s = bench.sizes
    x, weight, rows = bench.draw(min(tokens, 4096), s.hidden), bench.draw(s.vocabulary, s.hidden), max(1, round(tokens / 4096))

    def work() -> None:
        for _ in range(rows):
            _ = x @ weight.T

    return work


def teacher(bench: Bench) -> None:
    from renio_pipeline import packed_attention, scorer
    from renio_pipeline.batching import micro_batches
    from renio_pipeline.types import ScoreRequest, ScorerSpec, Version

    rng, s = np.random.default_rng(1), bench.sizes
    requests = [
        ScoreRequest(
            sample_id=i, prompt_ids=rng.integers(0, s.vocabulary, p).astype(np.int32),
            response_ids=rng.integers(0, s.vocabulary, n).astype(np.int32),
        )
        for i, (p, n) in enumerate(long_tailed(bench))
    ]  # fmt: skip
    tokens, responses = sum(r.tokens for r in requests), sum(len(r.response_ids) for r in requests)
    lm = model(bench).eval().requires_grad_(False)
    held = scorer.Scorer.__new__(scorer.Scorer)
    held._spec = ScorerSpec(model="", dtype="bfloat16", temperature=1.0, vocab_size=s.vocabulary, kind="hidden")
    held._device, held.model, held.version = bench.device, lm, Version(0, 0)
    few = 3
    floor = bench.cost(layers_floor(bench, tokens, 16384), few)["ms"]
    bench.record("teacher", "tokens", {"all": tokens, "responses": responses, "longest": max(r.tokens for r in requests)})
    bench.record("teacher", "layers' matmul floor", {"ms": floor})
    head = bench.cost(head_floor(bench, responses), few)["ms"]
    bench.record("teacher", "head's matmul floor", {"ms": head})
    for row, unmasked in ((4096, True), (16384, True), (32768, True), (2048, False), (4096, False)):
        lm.set_attn_implementation("sdpa")
        if unmasked:
            packed_attention.use(lm)
        name = f"rows of {row}, {lm.config._attn_implementation}"
        held._row_tokens = row
        with bench.section(f"teacher {name}"), torch.no_grad():
            rows = scorer.pack(requests, row)

            def states() -> None:
                for packed in rows:  # noqa: B023
                    held._hidden(packed)

            bench.record("teacher", f"{name}, states", bench.cost(states, few), floor)
            if row == scorer.UNMASKED_TOKENS["cuda"] or not unmasked:
                bench.record("teacher", f"{name}, score()", bench.cost(lambda: held.score(requests), few), floor + head)
    with bench.section("teacher profile"):
        packed_attention.use(lm)
        held._row_tokens = scorer.UNMASKED_TOKENS["cuda"]
        profile(bench, "teacher", lambda: held.score(requests))
    lm.set_attn_implementation("sdpa")
    with bench.section("teacher padded"), torch.no_grad():
        groups = {"padded, sorted by length": micro_batches(requests, s.micro_batch_tokens, packing=False)}
        groups["padded, 8 as they come"] = [requests[i : i + 8] for i in range(0, len(requests), 8)]
        for name, batches in groups.items():
            padded = [collated(batch, bench.device) for batch in batches]
            useful = tokens / sum(ids.numel() for ids, _ in padded)

            def pass_() -> None:
                for ids, mask in padded:  # noqa: B023
                    lm.base_model(input_ids=ids, attention_mask=mask, use_cache=False)

            bench.record("teacher", f"{name}, states", bench.cost(pass_, few) | {"useful": useful}, floor)


def collated(batch: Any, device: str) -> tuple[Tensor, Tensor]:
    width = max(r.tokens for r in batch)
    ids, mask = torch.zeros(len(batch), width, dtype=torch.long), torch.zeros(len(batch), width, dtype=torch.long)
    for row, r in enumerate(batch):
        ids[row, : r.tokens] = torch.as_tensor(np.concatenate([r.prompt_ids, r.response_ids])).long()
        mask[row, : r.tokens] = 1
    return ids.to(device), mask.to(device)


def trainer(bench: Bench) -> None:
    """Forward and backward of a step's samples with the exact loss, in the trainer's micro-batches."""
    from renio_pipeline import packed_attention
    from renio_pipeline.batching import micro_batches
    from renio_pipeline.schema import Jsd
    from renio_pipeline.student import TokenLogits, micro_batch_loss
    from renio_pipeline.types import Hidden, TrainSample, Version

    rng, s = np.random.default_rng(1), bench.sizes
    samples, payload = [], {}
    for i, (p, n) in enumerate(long_tailed(bench)):
        states = bench.draw(n, s.teacher_hidden).cpu().view(torch.uint16).numpy()
        payload[i] = Hidden(values=states, version=Version(0, 0), teacher="")
        ids = rng.integers(0, s.vocabulary, p + n).astype(np.int32)
        zeros = np.zeros(n, np.float32)
        samples.append(
            TrainSample(
                sample_id=i, prompt_ids=ids[:p], response_ids=ids[p:], student_logprobs=zeros, teacher_logprobs=zeros,
                weight=1.0,
            )
        )  # fmt: skip
    lm = model(bench).train()
    student = TokenLogits(lm)
    head = Head(bench.draw(s.vocabulary, s.teacher_hidden, scale=2 * s.teacher_hidden**-0.5))
    tokens = sum(x.tokens for x in samples)
    responses = sum(len(x.response_ids) for x in samples)
    problem = Problem(bench, 4096 if bench.device == "cuda" else 48)
    few = 3
    layers = bench.cost(layers_floor(bench, tokens, 16384), few)["ms"]
    whole_loss = bench.cost(problem.floor(), few)["ms"] * responses / problem.tokens
    del problem
    bench.record("trainer", "tokens", {"all": tokens, "responses": responses})
    bench.record("trainer", "floors", {"layers forward ms": layers, "loss ms": whole_loss})

    counted: dict[bool, tuple[int, int]] = {}

    def step(packing: bool) -> None:
        computed = 0
        batches = micro_batches(samples, s.micro_batch_tokens, packing=packing)
        for batch in batches:
            micro = micro_batch_loss(
                student, batch, payload, objective=Jsd(beta=0.0, entry_clip=0.05), batch_size=len(samples), temperature=1.0,
                vocab_size=s.vocabulary, device=bench.device, teacher_head=lambda *_: head, packing=packing,
            )  # fmt: skip
            micro.loss.backward()
            computed += micro.computed_tokens
        lm.zero_grad()
        counted[packing] = computed, len(batches)

    def measure(name: str, packing: bool, floor: float) -> None:
        with bench.section(f"trainer {name}"):
            cost = bench.cost(lambda: step(packing), 2)
            computed, passes = counted[packing]
            bench.record("trainer", name, cost | {"useful": tokens / computed, "micro-batches": passes}, floor)

    for checkpointing, passes in ((True, 4), (False, 3)):
        floor, kind = passes * layers + whole_loss, "checkpointing" if checkpointing else "no checkpointing"
        if checkpointing:
            lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            lm.gradient_checkpointing_disable()
        lm.set_attn_implementation("sdpa")
        measure(f"a row each, {kind}", False, floor)
        if checkpointing:
            measure(f"packed, mask, {kind}", True, floor)
        packed_attention.use(lm)
        measure(f"packed, {lm.config._attn_implementation}, {kind}", True, floor)
    with bench.section("trainer profile"):
        profile(bench, "trainer", lambda: step(True))


def profile(bench: Bench, name: str, work: Work) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as trace

    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if bench.device == "cuda" else [])
    with trace(activities=kinds) as found:
        work()
        bench.sync()
    key = "self_cuda_time_total" if bench.device == "cuda" else "self_cpu_time_total"
    text = found.key_averages().table(sort_by=key, row_limit=25, max_name_column_width=90)
    Path(os.environ.get("OUT", "."), f"profile-{name}.txt").write_text(text)


def profiles(bench: Bench) -> None:
    problem = Problem(bench, bench.sizes.tokens[0])
    profile(bench, "loss", problem.backward(lambda: problem.ours(**CASES["kl clip"])))


SECTIONS = {
    "exactness": exactness, "kernel": kernel, "loss": loss, "profiles": profiles, "teacher": teacher, "trainer": trainer,
    "token losses": token_losses, "compiled": compiled,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--seconds", type=float, default=220, help="no section begins later than this")
    parser.add_argument("--json", type=Path, default=Path(os.environ.get("OUT", "."), "gpu.json"))
    args = parser.parse_args()
    bench = Bench(TINY if args.tiny else Sizes(), args.device)
    for name in args.only:
        if time.perf_counter() - STARTED > args.seconds:
            bench.report.setdefault("errors", {})[name] = "not begun: no time was left"
            continue
        with bench.section(name):
            SECTIONS[name](bench)
        args.json.write_text(json.dumps(bench.report, indent=1) + "\n")
    args.json.write_text(json.dumps(bench.report, indent=1) + "\n")
    print(bench.report["device"], bench.report["torch"], *bench.rows, *bench.report.get("errors", {}), sep="\n")


if __name__ == "__main__":
    main()
