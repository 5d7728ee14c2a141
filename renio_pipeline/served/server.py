"""One server: whether it can be used, and one request to it."""

from __future__ import annotations

import json
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from renio_pipeline.config.errors import ConfigError
from renio_pipeline.served.faults import (
    RequestRefusedError,
    ServerAwayError,
    ServerBusyError,
    UnsuitableServerError,
    UnusableAnswerError,
)
from renio_pipeline.served.spec import Secret, ServedSpec

CONNECT_SECONDS = 10.0
MOST_TEXT = 300  # characters of a server's own words in an error
REFUSED = (400, 405, 411, 413, 415, 422)
AWAY = (404, 502, 503, 504)  # 404: it serves another model now, or a gateway has lost it
BUSY = (408, 425, 429)


@dataclass(eq=False)
class Server:
    """The client's view of a server."""

    url: str
    up: bool = False
    reason: str = "it was not asked yet"  # why it is not up
    in_flight: int = 0
    busy_until: float = 0.0  # on the event loop's clock
    failures: int = 0  # in a row
    label: str = field(init=False)  # in texts and metrics

    def __post_init__(self) -> None:
        self.label = urlsplit(self.url).netloc


def session(spec: ServedSpec, secret: Secret) -> aiohttp.ClientSession:
    """Connections to all servers of a teacher. Must be closed. Proxies and ``.netrc`` of the environment are not used.

    Raises:
        ConfigError: ``ca_file`` cannot be read.
    """
    secure = any(url.startswith("https:") for url in spec.urls)
    try:
        context = ssl.create_default_context(cafile=spec.ca_file) if secure else False
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{spec.key}.ca_file: {spec.ca_file} cannot be read as certificates: {error}") from None
    return aiohttp.ClientSession(
        headers={"Accept": "application/json", **secret.header},
        connector=aiohttp.TCPConnector(limit=0, ssl=context),
        trust_env=False,
    )


async def ask(
    http: aiohttp.ClientSession,
    server: Server,
    path: str,
    body: Any = None,
    *,
    secret: Secret,
    seconds: float,
) -> Any:
    """The answer to a POST of ``body``, or to a GET where there is none, within ``seconds``.

    Raises:
        ServerAwayError: no connection, no answer in time, or an answer of a gateway.
        ServerBusyError: the server asks for patience.
        UnsuitableServerError: it refuses the key, or sends the request on.
        RequestRefusedError: it refuses the request.
        UnusableAnswerError: it failed, or the answer is no JSON.
    """
    method = "GET" if body is None else "POST"
    try:
        # Redirects are not followed: the key is for this server alone.
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
        async with http.request(method, server.url + path, json=body, allow_redirects=False, timeout=timeout) as answer:
            content = await answer.read()
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
        raise UnsuitableServerError(f"TLS: {_line(str(error))}; name its authority's certificates in ca_file") from None
    except TimeoutError as error:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            raise ServerAwayError("no connection in time") from None
        raise ServerAwayError(f"no answer in {seconds:g} s", late=True) from None
    except aiohttp.ClientConnectorError as error:
        raise ServerAwayError(_line(str(error))) from None
    except (aiohttp.ClientError, OSError) as error:
        raise ServerAwayError(f"the connection ended: {_line(str(error)) or type(error).__name__}", cut=True) from None
    if answer.status == 200:
        with suppress(ValueError):
            return msgspec.json.decode(content)
    said = secret.scrubbed(_line(secret.scrubbed(content.decode(errors="replace"))))  # in JSON it may be escaped
    if answer.status == 200:
        raise UnusableAnswerError(f"its answer is no JSON: {said}")
    text = f"it answers {answer.status} to {path}: {said or 'without a text'}"
    raise _fault(answer.status, answer.headers.get("Retry-After"), text)


def _fault(status: int, after: str | None, text: str) -> Exception:
    if status in (401, 403):
        return UnsuitableServerError(f"{text}; see key_env")
    if 300 <= status < 400:
        return UnsuitableServerError(f"{text}; give the URL that it sends to")
    if status in BUSY or (status == 503 and after):
        return ServerBusyError(text, _seconds(after))
    if status in AWAY:
        return ServerAwayError(text, status=status)
    if status in REFUSED:
        return RequestRefusedError(text)
    return UnusableAnswerError(text)


def _seconds(after: str | None) -> float | None:
    try:
        return max(0.0, float(after)) if after else None
    except ValueError:  # a date
        return None


def _line(text: str) -> str:
    """The beginning of a text, on one line. vLLM's errors are JSON with a message."""
    try:
        found = json.loads(text)
        text = str(found.get("message") or found.get("error", {}).get("message") or found.get("detail") or text)
    except (ValueError, AttributeError):
        pass
    text = " ".join(text.split())
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]} ..."
