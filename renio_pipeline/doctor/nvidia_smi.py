"""Reads the output of ``nvidia-smi -q -x``."""

from __future__ import annotations

from xml.etree import ElementTree

from renio_pipeline.doctor.facts import Driver, Gpu, GpuProcess


def parse(text: str) -> Driver:
    """The driver and its GPUs.

    Raises:
        ValueError: ``text`` is not such output.
    """
    try:
        log = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"nvidia-smi did not print XML: {error}") from None
    version = log.findtext("driver_version")
    if log.tag != "nvidia_smi_log" or version is None:
        raise ValueError("nvidia-smi printed XML without a driver version")
    cuda = log.findtext("cuda_version")
    return Driver(
        version=version,
        cuda=cuda if cuda and cuda[0].isdigit() else None,
        gpus=tuple(_gpu(gpu) for gpu in log.findall("gpu")),
    )


def _gpu(gpu: ElementTree.Element) -> Gpu:
    return Gpu(
        name=gpu.findtext("product_name") or "unknown",
        total=_bytes(gpu.findtext("fb_memory_usage/total")) or 0,
        free=_bytes(gpu.findtext("fb_memory_usage/free")) or 0,
        instances=len(gpu.findall("mig_devices/mig_device")),
        processes=tuple(
            GpuProcess(
                pid=int(process.findtext("pid") or 0),
                name=process.findtext("process_name") or "unknown",
                used=_bytes(process.findtext("used_memory")),
            )
            for process in gpu.findall("processes/process_info")
        ),
    )


def _bytes(text: str | None) -> int | None:
    """``"81559 MiB"`` in bytes; None for ``"N/A"``."""
    number, _, unit = (text or "").partition(" ")
    return int(number) * 2**20 if number.isdigit() and unit == "MiB" else None
