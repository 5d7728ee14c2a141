"""The checks, in the order in which they run. A file here has the checks of one subject.

Group a needs neither vLLM nor Ray; b is about one engine; c about two processes that share the GPU; d is a whole run.
"""

from __future__ import annotations

from tests.gpu.check import Check

ENGINE = ("vllm", "ray")  # the pipeline's actors around an engine are classes of modules that import Ray
PAIR = ("vllm", "ray", "deepspeed")
CHECKS = (
    Check(name="a-head-and-packing-main", function="packing:main", seconds=240),
    Check(name="a-head-and-packing-large", function="packing:large", seconds=300),
    Check(name="a-zero-2", function="zero:stage_2", seconds=300, needs=("deepspeed",)),
    Check(name="a-zero-3", function="zero:stage_3", seconds=300, needs=("deepspeed",)),
    Check(name="a-losses", function="losses:losses", seconds=240),
    Check(name="a-tests", function="own_tests:own_tests", seconds=540, needs=("pytest",), gpu=True),
    Check(name="b-generation", function="engines:generation", seconds=420, needs=ENGINE),
    Check(name="b-scoring", function="engines:scoring", seconds=420, needs=ENGINE),
    Check(name="b-hidden-states", function="engines:hidden_states", seconds=420, needs=ENGINE),
    Check(name="b-lora", function="updates:lora", seconds=540, needs=(*PAIR, "peft")),
    Check(name="b-host-update-tied", function="updates:host_tied", seconds=540, needs=PAIR),
    Check(name="b-host-update-untied", function="updates:host_untied", seconds=540, needs=PAIR),
    Check(name="c-ipc", function="updates:ipc", seconds=540, needs=PAIR, gpu=True),
    Check(name="c-sleep", function="sleep:sleep", seconds=540, needs=PAIR, gpu=True),
    Check(name="c-packed", function="packed:packed", seconds=420, needs=("vllm",)),
    Check(name="d-colocated-run", function="colocated:colocated", seconds=580, needs=PAIR),
)


def by_name(name: str) -> Check:
    """Raises ValueError for a name that no check has."""
    for check in CHECKS:
        if check.name == name:
            return check
    raise ValueError(f"there is no check {name!r}; there are {', '.join(check.name for check in CHECKS)}")
