"""GPUs, as their vendor's data sheets have them: dense rates, without sparsity."""

from __future__ import annotations

from dataclasses import dataclass

from renio_pipeline.config import ConfigError

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Device:
    """Of one GPU."""

    name: str
    memory: float  # bytes that a program can have
    bf16_flops: float  # a second, tensor cores, dense
    fp32_flops: float  # a second, without tensor cores: what PyTorch does unless it is told otherwise
    bandwidth: float  # bytes a second of its memory
    link: float  # bytes a second to another GPU of its node, one way
    network: float = 50e9  # bytes a second to another node, one way: 400 Gb/s a GPU
    host: float = 25e9  # bytes a second to host memory

    def flops(self, dtype: str) -> float:
        return self.bf16_flops if dtype == "bfloat16" else self.fp32_flops


# Sources, NVIDIA's data sheets: "H100 Tensor Core GPU" (SXM5), "H200 Tensor Core GPU" (SXM), "A100 Tensor Core GPU" (SXM4),
# "HGX B200" (an eighth of the board), "L40S", "L4". Where a sheet gives a rate with sparsity, half of it is dense.
# Memory is a little below the name's: what the driver leaves. NVLink one way is half of the sheets' figure.
DEVICES = {
    d.name: d
    for d in (
        Device(name="a100-40", memory=39.5 * GIB, bf16_flops=312e12, fp32_flops=19.5e12, bandwidth=1.555e12, link=300e9),
        Device(name="a100", memory=79.2 * GIB, bf16_flops=312e12, fp32_flops=19.5e12, bandwidth=2.039e12, link=300e9),
        Device(name="h100", memory=79.2 * GIB, bf16_flops=989e12, fp32_flops=67e12, bandwidth=3.35e12, link=450e9),
        Device(name="h200", memory=139.8 * GIB, bf16_flops=989e12, fp32_flops=67e12, bandwidth=4.8e12, link=450e9),
        Device(name="b200", memory=178.0 * GIB, bf16_flops=2250e12, fp32_flops=75e12, bandwidth=7.7e12, link=900e9),
        Device(name="l40s", memory=44.4 * GIB, bf16_flops=362e12, fp32_flops=91.6e12, bandwidth=0.864e12, link=32e9),
        Device(name="l4", memory=22.2 * GIB, bf16_flops=121e12, fp32_flops=30.3e12, bandwidth=0.3e12, link=32e9),
    )
}


def device_of(name: str) -> Device:
    """Raises ConfigError for one that is not in the table."""
    if name not in DEVICES:
        raise ConfigError(
            f"--device: {name!r} is not known; there are {', '.join(DEVICES)}. Another one's figures go into a --rates file, "
            "under `device`"
        )
    return DEVICES[name]
