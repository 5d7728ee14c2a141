"""Where the time goes."""

from __future__ import annotations

import os
from pathlib import Path

from tests.benchmarks.gpu.bench import Bench, Work
from tests.benchmarks.gpu.losses import CASES
from tests.benchmarks.gpu.problem import Problem


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
