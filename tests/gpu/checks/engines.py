"""One vLLM engine in this process, as the pipeline's replicas build it, against a torch forward of the same weights."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.gpu import models
from tests.gpu.check import Figure, Figures
from tests.gpu.settings import Settings

TOP_K = 8  # of the teacher's payload
SAME_BEST = 0.8  # share of positions at which the reference, which rounds otherwise, agrees on the likeliest token
SEQUENCES = 4  # to score


def generation(settings: Settings) -> Figures:
    """Responses sampled with top-k and top-p; their log-probabilities are of the whole trimmed vocabulary at τ."""
    models.environment(settings)
    from actors.engines.generator import Generator

    with models.saved(settings, settings.main) as folder:
        started = time.perf_counter()
        generator = Generator(_spec(settings, folder))
        yield Figure("time to load", time.perf_counter() - started, "s")
        written = asyncio.run(_write(settings, generator))
        lm, gaps, inside, tokens = models.loaded(settings, folder), [], [], 0
        for sample_id, response in written.items():
            prompt, found = _prompt(settings, sample_id), response.token_ids
            assert len(found), f"response {sample_id} has no tokens"
            assert found.max() < settings.vocabulary, f"response {sample_id} has token {found.max()}, which was trimmed"
            wanted = _logprobs(settings, lm, np.concatenate([prompt, found]))[len(prompt) - 1 :]
            gaps.append(np.abs(response.logprobs - wanted[np.arange(len(found)), found]))
            # Among the likeliest tokens, with the reference's rounding allowed for.
            last = np.partition(wanted, -settings.top_k, axis=1)[:, -settings.top_k]
            inside.append(wanted[np.arange(len(found)), found] >= last - 4 * settings.gap)
            tokens += len(found)
    yield from _gaps(settings, "log-probabilities", np.concatenate(gaps))
    yield Figure("sampled tokens among the top k", float(np.concatenate(inside).mean()), least=0.999)
    yield Figure("sampled tokens", tokens)


def scoring(settings: Settings) -> Figures:
    """A teacher's log-probabilities of given tokens, and its top tokens, in sequences longer than a chunk of logits."""
    models.environment(settings)
    from actors.engines.vllm_teacher import Teacher

    with models.saved(settings, settings.main) as folder:
        teacher = Teacher(_spec(settings, folder, max_logprobs=TOP_K))
        requests = _requests(settings)
        started = time.perf_counter()
        scores, payload = asyncio.run(teacher.score(requests))
        seconds = time.perf_counter() - started
        lm, gaps, top_gaps, same = models.loaded(settings, folder), [], [], []
        for request, found in zip(requests, scores, strict=True):
            wanted = _logprobs(settings, lm, _whole(request))[len(request.prompt_ids) - 1 :]
            gaps.append(np.abs(found - wanted[np.arange(len(found)), request.response_ids]))
            top = payload[request.sample_id]
            assert top.token_ids.max() < settings.vocabulary, "the payload has tokens that were trimmed"
            top_gaps.append(np.abs(top.logprobs[:, 1:] - np.take_along_axis(wanted, top.token_ids[:, 1:], 1)))
            same.append((top.token_ids[:, 1] == wanted.argmax(axis=1)).mean())
    yield from _gaps(settings, "log-probabilities", np.concatenate(gaps))
    yield Figure("top tokens' log-probabilities, mean gap", float(np.concatenate(top_gaps).mean()), "nats", most=settings.gap)
    yield Figure("positions with the same likeliest token", float(np.mean(same)), least=SAME_BEST)
    yield Figure("tokens scored", sum(r.tokens for r in requests) / seconds, "a second")


def hidden_states(settings: Settings) -> Figures:
    """A teacher's states after the final norm, on vLLM's pooling runner."""
    models.environment(settings)
    import torch

    from actors.engines.vllm_hidden_teacher import HiddenTeacher
    from renio_pipeline.objectives.payload import from_numpy

    with models.saved(settings, settings.main) as folder:
        teacher = HiddenTeacher(_spec(settings, folder, hidden_states=True))
        requests = _requests(settings)
        scores, payload = asyncio.run(teacher.score(requests))
        lm, gaps, state_gaps = models.loaded(settings, folder), [], []
        for request, found in zip(requests, scores, strict=True):
            ids, kept = _whole(request), slice(len(request.prompt_ids) - 1, request.tokens - 1)
            wanted = _states(settings, lm, ids)[kept].float().cpu()
            states = torch.as_tensor(from_numpy(payload[request.sample_id].values)).float()
            assert states.shape == wanted.shape, f"states of shape {tuple(states.shape)} instead of {tuple(wanted.shape)}"
            state_gaps.append(float((states - wanted).norm() / wanted.norm()))
            logprobs = _logprobs(settings, lm, ids)[len(request.prompt_ids) - 1 :]
            gaps.append(np.abs(found - logprobs[np.arange(len(found)), request.response_ids]))
    yield Figure("states, largest relative gap", max(state_gaps), most=settings.state_gap)
    yield from _gaps(settings, "log-probabilities", np.concatenate(gaps))


def _spec(settings: Settings, folder: str, **more: Any) -> Any:
    from actors.engines.specs import EngineSpec

    return EngineSpec(
        model=folder,
        dtype=settings.dtype,
        context=settings.context,
        temperature=settings.temperature,
        vocab_size=settings.vocabulary,
        on_gpu=settings.on_gpu,
        options=dict(settings.engine_options),
        **more,
    )


async def _write(settings: Settings, generator: Any) -> dict[int, Any]:
    from actors.engines.generator import Failed, WriteRequest
    from actors.packed_messages import pack, unpack

    requests = [
        WriteRequest(
            sample_id=i,
            prompt_ids=_prompt(settings, i),
            seed=i,
            max_tokens=settings.response_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
        )
        for i in range(settings.samples)
    ]
    ended: list[Any] = unpack(await generator.exchange(pack(requests)))
    while len(ended) < len(requests):
        ended += unpack(await generator.exchange(pack([])))
    for each in ended:
        if isinstance(each, Failed):
            raise each.error
    return {each.sample_id: each for each in ended}


def _prompt(settings: Settings, sample_id: int) -> np.ndarray:
    return models.ids(settings, settings.prompt_tokens, 100 + sample_id)


def _requests(settings: Settings) -> list[Any]:
    from renio_pipeline.types import ScoreRequest

    found = []
    for i in range(SEQUENCES):
        ids = models.ids(settings, settings.scored_tokens - 7 * i, 200 + i)
        split = settings.prompt_tokens
        found.append(ScoreRequest(sample_id=i, prompt_ids=ids[:split], response_ids=ids[split:]))
    return found


def _whole(request: Any) -> np.ndarray:
    return np.concatenate([request.prompt_ids, request.response_ids])


def _states(settings: Settings, lm: Any, ids: np.ndarray) -> Any:
    import torch

    with torch.no_grad():
        given = torch.as_tensor(ids, device=settings.device).long()[None]
        return lm.base_model(input_ids=given, use_cache=False).last_hidden_state[0]


def _logprobs(settings: Settings, lm: Any, ids: np.ndarray) -> np.ndarray:
    """[L - 1, vocabulary] float32 at τ: of what each token but the last says of its successor."""
    import torch

    states = _states(settings, lm, ids)[:-1]
    weight = lm.get_output_embeddings().weight[: settings.vocabulary]
    logits = states.float() @ weight.float().T / settings.temperature
    return torch.log_softmax(logits, dim=-1).cpu().numpy()


def _gaps(settings: Settings, what: str, gaps: Sequence[float] | np.ndarray) -> Figures:
    yield Figure(f"{what}, mean gap", float(np.mean(gaps)), "nats", most=settings.gap)
    yield Figure(f"{what}, largest gap", float(np.max(gaps)), "nats")
