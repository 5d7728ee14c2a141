"""New weights for a running engine, after which it must say what the trainer says."""

from __future__ import annotations

from dataclasses import replace

from tests.gpu import models
from tests.gpu.check import Figure, Figures
from tests.gpu.memory import gib
from tests.gpu.pair import pair, timed
from tests.gpu.settings import Settings, Sizes

STALE = 3.0  # times the gap after an update: what a step must move log-probabilities by, or the check would show nothing
STEPS = 2


def host_tied(settings: Settings) -> Figures:
    return _updates(settings, replace(settings.main, tied=True), "host")


def host_untied(settings: Settings) -> Figures:
    return _updates(settings, replace(settings.main, tied=False), "host")


def ipc(settings: Settings) -> Figures:
    return _updates(settings, settings.main, "ipc")


def lora(settings: Settings) -> Figures:
    """Factors alone, from memory."""
    adapter = ("trainer.lora={r: 16, alpha: 64}", "sync.lora=adapter", f"trainer.lr={settings.lora_lr}")
    return _updates(settings, settings.main, "host", *adapter)


def _updates(settings: Settings, sizes: Sizes, backend: str, *overrides: str) -> Figures:
    with models.saved(settings, sizes) as folder, pair(settings, folder, backend, *overrides) as both:
        both.publish()
        yield Figure("gap at the start", both.gap(), "nats", most=settings.gap)
        for step in range(1, STEPS + 1):
            both.train()
            stale = both.gap()
            receipt, seconds = timed(both.publish)
            after = both.gap()
            yield Figure(f"gap after update {step}", after, "nats", most=settings.gap)
            yield Figure(f"gap before it, over that after it, {step}", stale / max(after, 1e-9), least=STALE)
            yield Figure(f"time of update {step}", seconds, "s")
        yield Figure("sent", gib(receipt.bytes), "GiB")
