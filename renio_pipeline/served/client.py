"""All servers of a teacher: requests spread over them, sent again where one fails, and held while all are away.

not asked ──> up ──────────────> away ──> examined again, in growing intervals ──> up
              (gets requests)    (its requests go to the others)
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from renio_pipeline.config.errors import ConfigError
from renio_pipeline.models.end_tokens import exchanged
from renio_pipeline.served.api import Scoring, make_api
from renio_pipeline.served.examination import Findings, examine
from renio_pipeline.served.faults import (
    MOST_CUTS,
    UNUSABLE,
    KillsServersError,
    RequestRefusedError,
    ServerAwayError,
    ServerBusyError,
    UnsuitableServerError,
    UnusableAnswerError,
)
from renio_pipeline.served.figures import Figures
from renio_pipeline.served.server import Server, ask, session
from renio_pipeline.served.spec import ServedSpec
from renio_pipeline.served.tables import table
from renio_pipeline.types import Continuation, ContinuationRequest, ScoreRequest, TopK

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between two attempts, which doubles
EXAMINATION_SECONDS = 120.0  # for each of its requests
MOST_FAILURES = 3  # times that a server fails on a request, or answers something else


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Which servers can be used."""

    up: int
    away: dict[str, str]  # by server: why
    seconds: float = 0.0  # for which none has been up
    busy: bool = False  # all that are up have asked for patience


def pause(failures: int) -> float:
    """Seconds before another attempt, after so many that failed: doubled each time, and spread so that clients do not meet."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 16)) * random.uniform(0.5, 1.5)


class Servers:
    """Usage: ``await open()``; ``score`` and ``write`` concurrently, any number of times; ``await close()``.

    A request goes to the server with the fewest requests. It waits as long as no server can take it.
    """

    def __init__(self, spec: ServedSpec) -> None:
        """Raises ConfigError if the key or the certificates are missing."""
        self._spec, self._secret = spec, spec.bearer()
        self._api = make_api(spec.api, spec.model, spec.vocab_size)
        self._servers = [Server(url) for url in spec.urls]
        self._findings: Findings | None = None  # of the first server that was examined
        self._first = asyncio.Lock()  # of servers that are examined at the same time, one is the first
        self._changed = asyncio.Condition()
        self._down_since: float | None = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        self._http: Any = None
        self.figures = Figures()

    async def open(self) -> None:
        """Examine every server. Those that are not fit are asked again later."""
        self._http = session(self._spec, self._secret)
        await asyncio.gather(*(self._try(server) for server in self._servers))
        for server in self._servers:
            if not server.up:
                self._begin(self._return(server))

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    @property
    def standing(self) -> Standing:
        away = {s.label: s.reason for s in self._servers if not s.up}
        seconds = 0.0 if self._down_since is None else time.monotonic() - self._down_since
        up = [s for s in self._servers if s.up]
        busy = bool(up) and all(s.busy_until > asyncio.get_running_loop().time() for s in up)
        return Standing(up=len(up), away=away, seconds=seconds, busy=busy)

    async def score(self, request: ScoreRequest) -> TopK:
        """[T, K + 1]: the sampled tokens of a response and the likeliest, by the student's ids.

        Raises:
            RequestRefusedError: the servers refuse it.
            KillsServersError: servers end, or fall silent, with it.
        """
        pairs = self._spec.end_tokens
        ids = [*request.prompt_ids.tolist(), *exchanged(request.response_ids, pairs).tolist()]
        if not len(request.response_ids):
            return table([], [], self._spec.top_k, self._spec.vocab_size)
        temperature = self._spec.temperature
        asked = Scoring(ids=ids, first=len(request.prompt_ids), k=self._spec.top_k, temperature=temperature)
        read = partial(self._api.read_score, asked=asked)
        found = await self._ask(self._api.score_path, self._api.score_body(asked), read, f"sample {request.sample_id}")
        return replace(found, token_ids=exchanged(found.token_ids, pairs))

    async def write(self, request: ContinuationRequest) -> Continuation:
        """Continue a prompt, of which one continuation is asked for. Raises as ``score`` does."""
        what = f"a text of up to {request.max_tokens} tokens"
        return await self._ask(self._api.write_path, self._api.write_body(request), self._api.read_text, what)

    async def _ask(self, path: str, body: Any, read: Callable[[Any], T], what: str) -> T:
        cuts = late = failures = 0
        last: Server | None = None
        while True:
            server = await self._free(last)
            last, began = server, time.monotonic()
            try:
                answer = await ask(self._http, server, path, body, secret=self._secret, seconds=self._spec.timeout)
                found = read(answer)
                server.failures = 0
                self.figures.answered(server.label, time.monotonic() - began)
                return found
            except (ServerAwayError, UnsuitableServerError) as error:
                self.figures.failed(server.label, "away")
                self._lose(server, str(error))
                if isinstance(error, ServerAwayError):
                    cuts, late = cuts + error.cut, late + error.late
                if cuts >= MOST_CUTS:
                    raise KillsServersError(f"{what}: {cuts} times a server's connection ended with it: {error}") from None
                if late >= MOST_CUTS:
                    key = self._spec.key
                    raise RequestRefusedError(
                        f"{what}: {late} times no answer in {key}.timeout, {self._spec.timeout:g} s; raise that, lower "
                        f"{key}.concurrency, or add servers"
                    ) from None
            except ServerBusyError as error:
                self.figures.failed(server.label, "busy")
                self._hold_off(server, pause(server.failures) if error.seconds is None else error.seconds)
            except RequestRefusedError as error:
                self.figures.failed(server.label, "refused")
                raise RequestRefusedError(f"{what}: {self._spec.key}: {server.label}: {error}") from None
            except UNUSABLE as error:
                self.figures.failed(server.label, "unusable")
                failures += 1
                reason = f"{type(error).__name__}: {error}" if not isinstance(error, UnusableAnswerError) else str(error)
                if failures >= MOST_FAILURES:
                    raise RequestRefusedError(
                        f"{what}: {self._spec.key}: {failures} attempts failed, the last at {server.label}: {reason}"
                    ) from None
                await asyncio.sleep(pause(failures - 1))
            finally:
                server.in_flight -= 1
                self.figures.in_flight(server.label, server.in_flight)
                await self._tell()

    async def _free(self, last: Server | None) -> Server:
        """Wait for a server with room, and take a place there: another than ``last``, if there is one."""
        async with self._changed:
            while (found := self._choice(last)) is None:
                await self._changed.wait()
            found.in_flight += 1
            self.figures.in_flight(found.label, found.in_flight)
            return found

    def _choice(self, last: Server | None) -> Server | None:
        now = asyncio.get_running_loop().time()
        room = [s for s in self._servers if s.up and s.in_flight < self._spec.concurrency and s.busy_until <= now]
        return min([s for s in room if s is not last] or room, key=lambda s: (s.in_flight, random.random()), default=None)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _hold_off(self, server: Server, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        server.failures += server.busy_until <= now  # what was in flight together is refused together, and counts once
        server.busy_until = max(server.busy_until, now + seconds)

        async def later() -> None:
            await asyncio.sleep(seconds)
            await self._tell()

        self._begin(later())

    def _lose(self, server: Server, reason: str) -> None:
        server.reason = reason
        if not server.up:
            return
        server.up = False
        self.figures.up(server.label, False)
        if not any(s.up for s in self._servers):
            self._down_since = time.monotonic()
        self._begin(self._return(server))

    async def _return(self, server: Server) -> None:
        """Ask a server that is away again and again, until it is fit."""
        failures = 0
        while not server.up:
            await asyncio.sleep(pause(failures))
            failures += 1
            await self._try(server)

    async def _try(self, server: Server) -> None:
        """Examine a server, which is up afterwards, or has a reason why not."""
        look = partial(ask, self._http, server, secret=self._secret, seconds=EXAMINATION_SECONDS)
        try:
            if self._findings is None:
                async with self._first:
                    found = await examine(look, self._api, self._spec, self._findings)
                    self._findings = self._findings or found
            else:
                await examine(look, self._api, self._spec, self._findings)
        except (ServerAwayError, ServerBusyError, UnsuitableServerError) as error:
            server.reason = str(error)
            self.figures.up(server.label, False)
            return
        server.up, server.reason, server.failures, self._down_since = True, "", 0, None
        self.figures.up(server.label, True)
        await self._tell()

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def check_servers(spec: ServedSpec) -> list[str]:
    """Examine every server before anything starts.

    Returns:
        What to tell the user: the servers that do not answer now.

    Raises:
        ConfigError: none answers, or one that does must not teach.
    """
    secret = spec.bearer()
    api, found, silent = make_api(spec.api, spec.model, spec.vocab_size), None, []
    async with session(spec, secret) as http:
        for server in map(Server, spec.urls):
            try:
                findings = await examine(
                    partial(ask, http, server, secret=secret, seconds=EXAMINATION_SECONDS), api, spec, found
                )
                found = found or findings
            except UnsuitableServerError as error:
                raise ConfigError(f"{spec.key}.urls: {server.url}: {error}") from None
            except (ServerAwayError, ServerBusyError) as error:
                silent.append(f"{spec.key}.urls: {server.url} does not answer now: {error}")
    if found is None:
        raise ConfigError("\n".join([*silent, f"{spec.key}.urls: no server answers; start one, or correct the URLs"]))
    return silent
