"""Whether a server may teach: is it the model that the configuration names, and are its log-probabilities what they must be.

A teacher's signal is the logarithm of ``softmax(logits / tau)``. Most servers return log-probabilities of raw logits, so at tau
1 there is nothing to do. Some divide the logits by a request's sampling temperature first: then tau is sent as that. Raw
log-probabilities of a few tokens do not give those at another tau, which needs the sum over the vocabulary of
``p ** (1 / tau)``. What a server does is found by asking the same twice, at two temperatures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from renio_pipeline.served.api import Api, Scoring
from renio_pipeline.served.faults import (
    UNUSABLE,
    RequestRefusedError,
    ServerAwayError,
    UnsuitableServerError,
)
from renio_pipeline.served.spec import ServedSpec
from renio_pipeline.types import TopK

Ask = Callable[..., Awaitable[Any]]  # of one server: a path and, of a POST, a body
HOTTER = 2.0  # the second temperature
ROUNDING = 1e-3  # of a probability mass
SHARE = 0.5  # of k / V, which the mass of the k likeliest cannot be below, if V is the server's own


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What an examination found."""

    logprobs: np.ndarray  # [N] float32, of the tokens of all texts, at temperature 1
    scales: bool  # it divides the logits by a request's temperature


async def examine(ask: Ask, api: Api, spec: ServedSpec, others: Findings | None = None) -> Findings:
    """Examine a server.

    Args:
        ask: raises as ``server.ask`` does.
        others: what was found of the servers before it, with which it must agree.

    Raises:
        UnsuitableServerError: it must not teach.
        ServerAwayError, ServerBusyError: it cannot be asked now.
    """
    try:
        await _check_model(ask, api, spec)
        await _check_tokenizer(ask, api, spec)
        found = await _log_probabilities(ask, api, spec)
    except RequestRefusedError as error:
        raise UnsuitableServerError(str(error)) from None
    except UNUSABLE as error:
        raise UnsuitableServerError(f"it does not answer as api {spec.api} does: {type(error).__name__}: {error}") from None
    if spec.temperature != 1 and not found.scales:
        raise UnsuitableServerError(
            f"its log-probabilities are those of raw logits, from which those at temperature {spec.temperature:g} cannot be "
            "made without the whole vocabulary; set temperature=1, or give the teacher a pool of its own with type=vllm"
        )
    if others is not None:
        gap = float(np.abs(found.logprobs - others.logprobs).mean())
        if not gap <= spec.tolerance or found.scales != others.scales:
            raise UnsuitableServerError(
                f"its log-probabilities of fixed texts differ by {gap:.3g} on average from those of the server before it, more "
                f"than the {spec.tolerance:g} that rounding explains: it has another model, other weights or another precision"
            )
    return found


async def _check_model(ask: Ask, api: Api, spec: ServedSpec) -> None:
    try:
        models = {str(each["id"]): each for each in (await ask("/v1/models"))["data"]}
    except ServerAwayError as error:
        if spec.api == "openai" and error.status == 404:
            return  # the list of models is no part of completions
        raise
    if spec.model not in models:
        raise UnsuitableServerError(
            f"it serves {', '.join(map(repr, models)) or 'nothing'}, not {spec.model!r}; set served_model to what it serves, "
            "if that is the teacher"
        )
    longest = models[spec.model].get("max_model_len")
    if longest is not None and longest < spec.context:
        raise UnsuitableServerError(
            f"it takes sequences of up to {longest} tokens, and prompt and response may have {spec.context}; start it with "
            f"--max-model-len {spec.context} or more, or lower max_response_tokens"
        )


async def _check_tokenizer(ask: Ask, api: Api, spec: ServedSpec) -> None:
    """Compare the ids of a few texts with the student's, if the interface can tokenize."""
    if api.tokenize is None:
        return
    for text, expected in spec.probes:
        try:
            answer = await ask(api.tokenize, {"model": spec.model, "prompt": text, "add_special_tokens": False})
        except ServerAwayError as error:
            if error.status == 404:
                return  # switched off
            raise
        if (found := tuple(answer["tokens"])) != expected:
            raise UnsuitableServerError(
                f"its tokenizer is not the student's: {text!r} is {list(found[:8])} to it, and {list(expected[:8])} to the "
                "student"
            )


async def _log_probabilities(ask: Ask, api: Api, spec: ServedSpec) -> Findings:
    k = spec.top_k or min(api.examined_k, spec.vocab_size - 1)
    plain, hotter = await asyncio.gather(*(_tables(ask, api, spec, k, t) for t in (1.0, HOTTER)))
    for table in plain:
        _check_mass(table, k, spec)
    first, second = (np.concatenate([t.logprobs for t in tables]) for tables in (plain, hotter))
    own, ids = first[:, 0], [np.concatenate([t.token_ids for t in tables]) for tables in (plain, hotter)]
    if float(np.abs(own - second[:, 0]).mean()) <= spec.tolerance:
        return Findings(logprobs=own, scales=False)
    same = (ids[0][:, 1:] == ids[1][:, 1:]).all(axis=1)  # rows whose likeliest tokens stand in one order
    ratios = [(row - row[:, :1])[same] for row in (first[:, 1:], second[:, 1:])]
    if same.any() and float(np.abs(ratios[0] / HOTTER - ratios[1]).mean()) <= spec.tolerance:
        return Findings(logprobs=own, scales=True)
    raise UnsuitableServerError(
        "two requests for the same log-probabilities disagree: neither are they those of raw logits, nor those of logits "
        "divided by the temperature that a request names"
    )


async def _tables(ask: Ask, api: Api, spec: ServedSpec, k: int, temperature: float) -> list[TopK]:
    async def of(ids: Sequence[int]) -> TopK:
        asked = Scoring(ids=ids, first=1, k=k, temperature=temperature, echo_ids=True)
        try:
            answer = await ask(api.score_path, api.score_body(asked))
        except RequestRefusedError as error:
            raise UnsuitableServerError(f"{error}; where k is too large for it: {api.help_k.format(k=k)}") from None
        except ServerAwayError as error:
            if error.status == 404:
                raise UnsuitableServerError(f"{error}; is its api another than {spec.api}?") from None
            raise
        if (echoed := api.read_echo(answer)) is not None and echoed != list(ids):
            raise UnsuitableServerError("it reads other token ids than those that are sent; is add_bos or a cut in its way?")
        return api.read_score(answer, asked)

    return await asyncio.gather(*map(of, spec.texts))


def _check_mass(table: TopK, k: int, spec: ServedSpec) -> None:
    """Raises UnsuitableServerError if these cannot be logarithms of probabilities, of which the k likeliest were returned."""
    values = table.logprobs.astype(np.float64)
    if not np.isfinite(values).all() or (values > ROUNDING).any():
        raise UnsuitableServerError(
            "its log-probabilities cannot be right: some are above 0 or not finite; are they logits? vLLM has --logprobs-mode "
            "raw_logprobs"
        )
    mass = np.exp(values[:, 1:]).sum(axis=1)
    if (mass > 1 + ROUNDING).any() or (mass < SHARE * k / spec.vocab_size).any():
        worst = float(mass.max() if mass.max() > 1 + ROUNDING else mass.min())
        raise UnsuitableServerError(
            f"the {k} likeliest of {spec.vocab_size} tokens have a probability of {worst:.3g} together, which is not possible: "
            "its log-probabilities are not those of raw logits"
        )
