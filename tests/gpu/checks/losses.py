"""The losses that are computed chunk by chunk, against the same losses of whole logits: value, gradients, memory, time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.gpu.check import Figure, Figures
from tests.gpu.memory import gib, peak
from tests.gpu.settings import Settings

K = 64
OPTIONS: dict[str, Any] = {"beta": 0.3, "entry_clip": 0.05}
VALUE = 1e-3  # relative
GRADIENT = 1e-2  # relative, of its norm: gradients are handed over in the heads' precision


@dataclass
class Cost:
    value: Any
    gradients: list[Any]
    seconds: float
    bytes: int | None  # beyond what was there; None on a CPU


def losses(settings: Settings) -> Figures:
    problem = Problem(settings)
    for name, chunked, naive in (
        ("exact divergence", problem.chunked_divergence, problem.naive_divergence),
        ("top-k divergence", problem.chunked_top_k, problem.naive_top_k),
    ):
        ours, theirs = problem.cost(chunked), problem.cost(naive)
        yield Figure(f"{name}: relative gap of the value", abs(ours.value / theirs.value - 1), most=VALUE)
        gaps = [float((a - b).norm() / b.norm()) for a, b in zip(ours.gradients, theirs.gradients, strict=True)]
        yield Figure(f"{name}: largest relative gap of a gradient", max(gaps), most=GRADIENT)
        yield Figure(f"{name}: time", ours.seconds * 1e3, "ms")
        if ours.bytes is not None and theirs.bytes is not None:
            yield Figure(f"{name}: extra memory", gib(ours.bytes), "GiB", most=gib(theirs.bytes) / 2)
            yield Figure(f"{name}: naive extra memory", gib(theirs.bytes), "GiB")


class Problem:
    """Hidden states and heads of a student and a teacher twice as wide, in bfloat16 on a GPU. Naive logits are in float32."""

    def __init__(self, settings: Settings) -> None:
        import torch

        from renio_pipeline.objectives.projection import Head

        self._settings = settings
        device, tokens, width = settings.device, settings.loss_tokens, settings.main.hidden
        generator = torch.Generator(device).manual_seed(0)

        def draw(*shape: int, scale: float = 1.0) -> Any:
            made = torch.randn(*shape, generator=generator, device=device) * scale
            return made.to(getattr(torch, settings.dtype))

        self.hidden = draw(tokens, width).requires_grad_()
        self.weight = draw(settings.rows, width, scale=2 * width**-0.5).requires_grad_()
        self.head = Head(self.weight)
        self.teacher_hidden = draw(tokens, 2 * width)
        self.teacher = Head(draw(settings.rows, 2 * width, scale=2 * (2 * width) ** -0.5))
        self.ids = torch.randint(settings.vocabulary, (tokens, K + 1), generator=generator, device=device)
        self.logprobs = torch.log_softmax(draw(tokens, K + 2).float(), dim=-1)[:, 1:]
        self.coefficients = torch.rand(tokens, generator=generator, device=device) / tokens

    def cost(self, loss: Callable[[], Any]) -> Cost:
        """Of a forward and backward, after one that warms up."""
        import torch

        def once() -> tuple[Any, list[Any]]:
            value = loss()
            gradients = [g.float() for g in torch.autograd.grad(value, [self.hidden, self.weight])]
            return value.detach().double().item(), gradients

        once()
        with peak(self._settings) as used:
            started = time.perf_counter()
            value, gradients = once()
            if self._settings.on_gpu:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
        return Cost(value, gradients, seconds, used.extra)

    def chunked_divergence(self) -> Any:
        from renio_pipeline.objectives.full_vocabulary import full_vocabulary_loss

        s = self._settings
        return full_vocabulary_loss(
            self.hidden,
            self.head,
            self.teacher_hidden,
            self.teacher,
            self.ids[:, 0],
            self.coefficients,
            temperature=s.temperature,
            vocab_size=s.vocabulary,
            **OPTIONS,
        ).loss

    def naive_divergence(self) -> Any:
        from renio_pipeline.divergence import generalized_jsd

        s = self._settings
        student = self._logits(self.hidden, self.weight)
        teacher = self._logits(self.teacher_hidden, self.teacher.weight)
        return (self.coefficients * generalized_jsd(student, teacher, temperature=s.temperature, **OPTIONS)).sum()

    def chunked_top_k(self) -> Any:
        from renio_pipeline.objectives.token_loss import token_loss

        s = self._settings
        return token_loss(
            self.hidden,
            self.head,
            self.ids,
            self.coefficients,
            self._per_token,
            temperature=s.temperature,
            vocab_size=s.vocabulary,
        ).loss

    def naive_top_k(self) -> Any:
        import torch

        logits = self._logits(self.hidden, self.weight) / self._settings.temperature
        logprobs = torch.log_softmax(logits, dim=-1).gather(1, self.ids)
        return (self.coefficients * self._per_token(logprobs, slice(0, len(logprobs)))).sum()

    def _logits(self, hidden: Any, weight: Any) -> Any:
        return hidden.float() @ weight[: self._settings.vocabulary].float().T

    def _per_token(self, logprobs: Any, rows: slice) -> Any:
        from renio_pipeline.divergence import top_k_forward_kl, top_k_support

        return top_k_forward_kl(logprobs, self.logprobs[rows], top_k_support(self.ids[rows]))
