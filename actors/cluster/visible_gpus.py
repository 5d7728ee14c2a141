"""Does an actor see the GPUs that Ray has assigned to it, and no others?"""

from __future__ import annotations

NOSET = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"


class WrongGpusError(RuntimeError):
    """A process would work on other GPUs than its own."""


def check_visible_gpus() -> None:
    """Compare what this process sees with what Ray has assigned, before a model loads. Call it in an actor that has GPUs.

    Where Ray is told to leave CUDA_VISIBLE_DEVICES alone, every actor of a node sees all of its GPUs, and takes the first. To a
    process outside of Ray nothing is assigned, and nothing is checked.

    Raises:
        WrongGpusError: it sees more or fewer; says what to do.
    """
    import ray
    import torch

    if not ray.is_initialized():
        return
    assigned = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    judge(assigned, torch.cuda.device_count(), ray.util.get_node_ip_address())


def judge(assigned: list[str], seen: int, node: str) -> None:
    """Raises WrongGpusError unless ``seen``, the number of visible GPUs, is that of the ``assigned`` ids."""
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
