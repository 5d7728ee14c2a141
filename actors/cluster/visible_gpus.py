"""Check that an actor sees the GPUs that Ray assigned to it, and no others."""

from __future__ import annotations

NOSET = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"


class WrongGpusError(RuntimeError):
    """A process would use other GPUs than its own."""


def check_visible_gpus() -> None:
    """Compare the GPUs that this process sees with those that Ray assigned. Call it in a GPU actor, before a model loads.

    If Ray is told to leave CUDA_VISIBLE_DEVICES alone, every actor of a node sees all its GPUs and uses the first. Outside Ray
    nothing is assigned and nothing is checked.

    Raises:
        WrongGpusError: the process sees more or fewer GPUs. The message says what to do.
    """
    import ray
    import torch

    if not ray.is_initialized():
        return
    assigned = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    judge(assigned, torch.cuda.device_count(), ray.util.get_node_ip_address())


def judge(assigned: list[str], seen: int, node: str) -> None:
    """Raises WrongGpusError unless ``seen``, the number of visible GPUs, equals the number of ``assigned`` ids."""
    if seen == len(assigned):
        return
    given = f"on node {node} Ray assigned GPU {', '.join(assigned) or 'none'} to this process, which sees {seen or 'none'}"
    if seen > len(assigned):
        raise WrongGpusError(
            f"{given}: every replica of the node would work on the same GPUs; unset {NOSET} where Ray is started"
        )
    raise WrongGpusError(
        f"{given}: check that the driver and a CUDA build of torch are installed there (nvidia-smi; python -c 'import torch; "
        "print(torch.cuda.device_count())'), and that Ray was started with as many --num-gpus as there are"
    )
