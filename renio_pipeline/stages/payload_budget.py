"""How much may be scored before it is trained on: ``payload.max_bytes``, shared by the steps in progress.

A step is trained on whole, so payloads go only with their step. If younger steps could fill the budget, the oldest one could
never be completed and nothing would ever be freed. So a batch of a younger step must leave room for the worst that every
older one may still need. Then the oldest step always has room, by induction: what it takes was reserved before.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Step:
    samples: int = 0  # scored or being scored
    bytes: int = 0  # of their payloads


class PayloadBudget:
    """Usage: ``open(step)``; ``if fits(step, n): take(step, samples, n)``; ``close(step)`` once it was trained on or dropped.

    ``fits`` may become true after any ``take`` (an older step's sample was smaller than the worst), ``give_back`` or ``close``.
    The bound holds as long as no payload is larger than ``sample_bytes`` a sample, no step takes more than ``batch_size``
    samples, and what is given back is taken again in the same size.
    """

    def __init__(self, max_bytes: int, batch_size: int, sample_bytes: int) -> None:
        """``sample_bytes`` is the largest payload of one sample; 0 where there are none.

        Raises:
            ValueError: one step alone may need more than ``max_bytes``.
        """
        if batch_size * sample_bytes > max_bytes:
            raise ValueError(
                f"payload.max_bytes ({max_bytes}) is less than one step may need: "
                f"batch_size ({batch_size}) samples of up to {sample_bytes} bytes, {batch_size * sample_bytes} bytes together"
            )
        self._max_bytes, self._batch_size, self._sample_bytes = max_bytes, batch_size, sample_bytes
        self._open: dict[int, _Step] = {}  # in the order of steps
        self._closed: set[int] = set()

    @property
    def held(self) -> int:
        """Bytes of all open steps."""
        return sum(step.bytes for step in self._open.values())

    def open(self, step: int) -> None:
        """Raises ValueError unless ``step`` is later than every open one: they have reserved nothing for an older one.

        A run that rolled back closes all its steps first, and may open their numbers again.
        """
        if self._open and step <= max(self._open):
            raise ValueError(f"step {step} is opened after step {max(self._open)}")
        self._open[step] = _Step()
        self._closed.discard(step)

    def fits(self, step: int, bytes: int) -> bool:
        """Whether a batch of ``bytes`` of payload may be dispatched now. Raises ValueError if the step is not open."""
        self._of(step)
        if step == next(iter(self._open)):
            return True  # a run must not hang: all that could ever make room for the oldest step is its own training
        return self.held + bytes + self._reserved(step) <= self._max_bytes

    def take(self, step: int, samples: int, bytes: int) -> None:
        """A batch is dispatched. Raises ValueError if the step is not open."""
        found = self._of(step)
        found.samples += samples
        found.bytes += bytes

    def give_back(self, step: int, samples: int, bytes: int) -> None:
        """A batch was lost before it was scored, and will be sent again. Nothing to do if the step was closed meanwhile.

        Raises:
            ValueError: the step never was open, or has not taken that much.
        """
        if step in self._closed:
            return
        found = self._of(step)
        if samples > found.samples or bytes > found.bytes:
            raise ValueError(
                f"step {step} gives back {samples} samples of {bytes} bytes, but holds {found.samples} of {found.bytes}"
            )
        found.samples -= samples
        found.bytes -= bytes

    def close(self, step: int) -> None:
        """The step was trained on, or dropped: its payloads are gone. Raises ValueError if it is not open."""
        self._of(step)
        del self._open[step]
        self._closed.add(step)

    def reset(self) -> None:
        """Close every step: the run goes back, and begins again with earlier ones."""
        self._closed |= self._open.keys()
        self._open.clear()

    def _reserved(self, step: int) -> int:
        """Bytes that open steps before ``step`` may still need, at worst."""
        missing = (max(0, self._batch_size - s.samples) for number, s in self._open.items() if number < step)
        return sum(missing) * self._sample_bytes

    def _of(self, step: int) -> _Step:
        if step not in self._open:
            raise ValueError(f"step {step} is not open; open are {list(self._open)}")
        return self._open[step]
