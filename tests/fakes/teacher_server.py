"""A fake of a server that has a teacher, in this event loop: of the interfaces of vLLM, SGLang and OpenAI what is used.

The model is a table: the logits of a token depend on the token before it. So what a client must get is known exactly.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import web

KEY = "sk-fake-" + "key-of-the-tests"
MODEL = "the-teacher"


def logits(rows: int, seed: int = 0) -> np.ndarray:
    """[rows, rows] of the next token, by the token before it."""
    return np.random.default_rng(seed).normal(0, 2, (rows, rows))


def fake_ids(text: str) -> list[int]:
    return [ord(letter) % 7 for letter in text]


def log_softmax(values: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    scaled = values / temperature
    return (
        scaled - np.log(np.exp(scaled - scaled.max(-1, keepdims=True)).sum(-1, keepdims=True)) - scaled.max(-1, keepdims=True)
    )


@dataclass
class FakeServer:
    """What it has, what it was asked, and how it misbehaves."""

    rows: int = 40
    seed: int = 0  # of its weights
    model: str = MODEL
    key: str = ""
    context: int = 64
    most_k: int = 20
    scales: bool = False  # log-probabilities are of logits that are divided by the request's temperature
    raw: bool = False  # logits in the place of log-probabilities
    noise: float = 0.0  # of another seed with each request
    tokenizer: Callable[[str], list[int]] = fake_ids
    shift: int = 0  # of the ids of its tokenizer
    cuts_prompt: bool = False
    ids_as_texts: bool = False  # of the interface openai
    seconds: float = 0.0  # for a request
    faults: list[str] = field(default_factory=list)  # of the next requests to score: cut, hang, garbage, nulls, or a status
    spared: tuple[tuple[int, ...], ...] = ()  # sequences that have none of these faults
    deadly: set[int] = field(default_factory=set)  # a prompt's first token with which the connection ends
    asked: list[list[int]] = field(default_factory=list)  # the sequences that were scored
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""
    _now: int = 0
    _runner: Any = None
    _context: ssl.SSLContext | None = None

    async def start(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        app = web.Application()
        app.add_routes(
            [
                web.get("/v1/models", self._models),
                web.post("/tokenize", self._tokenize),
                web.post("/v1/completions", self._score),
                web.post("/generate", self._score),
            ]
        )
        self._context = context or self._context
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "localhost", port or self.port, ssl_context=self._context)
        await site.start()
        bound = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.url = f"{'https' if self._context else 'http'}://localhost:{bound}"

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2]) if self.url else 0

    async def stop(self) -> None:
        """Requests under way are cut."""
        await self._runner.cleanup()

    def expected(self, ids: Sequence[int], temperature: float = 1.0) -> np.ndarray:
        """[len - 1, rows] the log-probabilities of every token but the first."""
        return log_softmax(logits(self.rows, self.seed)[list(ids[:-1])], temperature)

    async def _models(self, request: web.Request) -> web.Response:
        if (refused := self._unauthorised(request)) is not None:
            return refused
        return web.json_response({"data": [{"id": self.model, "max_model_len": self.context}]})

    async def _tokenize(self, request: web.Request) -> web.Response:
        if (refused := self._unauthorised(request)) is not None:
            return refused
        return web.json_response({"tokens": [i + self.shift for i in self.tokenizer((await request.json())["prompt"])]})

    def _unauthorised(self, request: web.Request) -> web.Response | None:
        self.headers.append(dict(request.headers))
        given = request.headers.get("Authorization", "")
        if self.key and given != f"Bearer {self.key}":
            return web.json_response({"error": {"message": f"Incorrect API key: {given}"}}, status=401)
        return None

    async def _score(self, request: web.Request) -> web.StreamResponse:
        if (refused := self._unauthorised(request)) is not None:
            return refused
        body = await request.json()
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await asyncio.sleep(self.seconds)
            return await self._answer(request, body)
        finally:
            self._now -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        ids = body.get("input_ids") or body["prompt"]
        fault = self.faults.pop(0) if self.faults and tuple(ids) not in self.spared else ""
        if fault == "cut" or ids[0] in self.deadly:
            assert request.transport is not None
            request.transport.abort()
        elif fault == "hang":
            await asyncio.sleep(3600)
        elif fault == "garbage":
            return web.json_response({"choices": []})
        elif fault == "nulls":
            return web.json_response({"choices": [{"prompt_token_ids": ids, "prompt_logprobs": [None] * len(ids)}]})
        elif fault:
            return web.json_response({"message": f"refused with {fault}"}, status=int(fault))
        if body.get("model", self.model) != self.model:
            return web.json_response({"error": {"message": "there is no such model"}}, status=404)
        generates = body.get("sampling_params", body)
        k = next((body[name] for name in ("prompt_logprobs", "top_logprobs_num", "logprobs") if name in body), None)
        if k is None:
            return web.json_response(self._written(request.path, ids, generates))
        if k > self.most_k:
            return web.json_response({"error": {"message": f"{k} log-probabilities; at most {self.most_k}"}}, status=400)
        self.asked.append(ids)
        return web.json_response(self._scored(request.path, ids, k, body, generates.get("temperature", 1.0)))

    def _scored(self, path: str, ids: list[int], k: int, body: dict[str, Any], temperature: float) -> dict[str, Any]:
        values = logits(self.rows, self.seed)[ids[:-1]] if self.raw else self.expected(ids, temperature if self.scales else 1.0)
        if self.noise:
            values = values - np.random.default_rng(len(self.asked)).exponential(self.noise, values.shape)
        best = np.argsort(-values, axis=1, kind="stable")[:, :k]
        if path == "/generate":
            first = body["logprob_start_len"]
            own = [[None, ids[0], None], *([float(row[i]), i, None] for row, i in zip(values, ids[1:], strict=True))]
            tops = [None, *([[float(row[i]), int(i), None] for i in top] for row, top in zip(values, best, strict=True))]
            return {"meta_info": {"input_token_logprobs": own[first:], "input_top_logprobs": tops[first:]}}
        if body.get("echo"):
            name = str if self.ids_as_texts else "token_id:{}".format
            top = [None, *({name(i): float(row[i]) for i in row_best} for row, row_best in zip(values, best, strict=True))]
            token_logprobs = [None, *(float(row[i]) for row, i in zip(values, ids[1:], strict=True))]
            return {"choices": [{"logprobs": {"token_logprobs": [*token_logprobs, -1.0], "top_logprobs": [*top, {}]}}]}
        entries = [
            {str(i): {"logprob": float(row[i]), "rank": 1} for i in {own, *top.tolist()}}
            for row, own, top in zip(values, ids[1:], best, strict=True)
        ]
        choice: dict[str, Any] = {"prompt_logprobs": [None, *entries]}
        if body.get("return_token_ids"):
            choice["prompt_token_ids"] = ids[1:] if self.cuts_prompt else ids
        return {"choices": [choice]}

    def _written(self, path: str, ids: list[int], asked: dict[str, Any]) -> dict[str, Any]:
        """The likeliest tokens after the prompt."""
        table, found = logits(self.rows, self.seed), list(ids)
        for _ in range(asked.get("max_tokens") or asked["max_new_tokens"]):
            found.append(int(table[found[-1]].argmax()))
        written = found[len(ids) :]
        if path == "/generate":
            return {"output_ids": written, "meta_info": {"finish_reason": {"type": "length"}}}
        return {"choices": [{"token_ids": written, "finish_reason": "length"}]}


@asynccontextmanager
async def served(*servers: FakeServer, context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[FakeServer, ...]]:
    """These servers, running."""
    for server in servers:
        await server.start(context=context)
    try:
        yield servers
    finally:
        for server in servers:
            await server.stop()
