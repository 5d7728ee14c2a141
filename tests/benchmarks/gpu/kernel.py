"""The Triton kernel alone."""

from __future__ import annotations

import torch

from tests.benchmarks.gpu.bench import Bench


def kernel(bench: Bench) -> None:
    """The kernel alone, over the time that its least traffic takes: both logits read once, the gradient written once."""
    from renio_pipeline.objectives import fused_kernel

    C, V = (1024, bench.sizes.vocabulary) if bench.device == "cuda" else (4, 100)
    x, y = torch.randn(C, V, device=bench.device), torch.randn(C, V, device=bench.device)
    grad, half = torch.empty_like(x, dtype=torch.bfloat16), torch.empty_like(x, dtype=torch.bfloat16)
    targets = torch.zeros(C, dtype=torch.long, device=bench.device)
    factors, out = torch.ones(C, device=bench.device), [torch.empty(C, device=bench.device) for _ in range(3)]
    once = bench.cost(lambda: half.copy_(x))["ms"] / 6 * 10
    bench.record("kernel", "traffic once", {"ms": once})
    usual = fused_kernel.BLOCK, fused_kernel.WARPS
    for beta in (0.0, 0.5):
        for block, warps in ((2048, 4), (4096, 8), (4096, 16)):
            fused_kernel.BLOCK, fused_kernel.WARPS = block, warps
            with bench.section(f"kernel {block} {warps}"):
                cost = bench.cost(
                    lambda: fused_kernel.divergence_and_gradient(
                        x,
                        y,
                        targets,
                        factors,
                        scales=(1.0, 1.0),
                        beta=beta,  # noqa: B023
                        entry_clip=0.05,
                        token_clip=None,
                        gradient=grad,
                        out=out,
                    )
                )
                bench.record("kernel", f"beta {beta} block {block} warps {warps}", cost, once)
    fused_kernel.BLOCK, fused_kernel.WARPS = usual
