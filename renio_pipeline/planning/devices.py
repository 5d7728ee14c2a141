"""GPUs by their vendor's data sheets: dense rates, without sparsity."""

from __future__ import annotations

from dataclasses import dataclass

from renio_pipeline.config import ConfigError

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Device:
    """The figures of one GPU."""

    name: str
    memory: float  # bytes that are available to a program
    bf16_flops: float  # FLOP/s on tensor cores, dense
    fp32_flops: float  # FLOP/s without tensor cores, PyTorch's default
    bandwidth: float  # bytes/s of the GPU's memory
    link: float  # bytes/s to another GPU of the node, one way
    network: float = 50e9  # bytes/s to another node, one way: 400 Gb/s per GPU
    host: float = 25e9  # bytes/s to host memory

    def flops(self, dtype: str) -> float:
        return self.bf16_flops if dtype == "bfloat16" else self.fp32_flops


# Sources, NVIDIA's data sheets: "H100 Tensor Core GPU" (SXM5), "H200 Tensor Core GPU" (SXM), "A100 Tensor Core GPU" (SXM4),
# "HGX B200" (an eighth of the board), "L40S", "L4". Where a sheet gives a rate with sparsity, half of it is dense.
# Memory is slightly below the nominal size, because the driver reserves some. One-way NVLink is half of the sheets' figure.
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
    """A device by name. Raises ConfigError for a name that is not in the table."""
    if name not in DEVICES:
        raise ConfigError(
            f"--device: {name!r} is not known; known devices: {', '.join(DEVICES)}. Describe any other device in a --rates "
            "file, under `device`"
        )
    return DEVICES[name]
