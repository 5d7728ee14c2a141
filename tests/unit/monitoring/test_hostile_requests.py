"""Clients of the metrics endpoint that ask for too much: they get an error or nothing, and the next scrape its page."""

from __future__ import annotations

import re
import resource
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest

from renio_pipeline.monitoring.endpoint import Endpoint, text_page

LARGE = {
    "a path of a megabyte": b"GET /" + b"a" * 10**6 + b" HTTP/1.1\r\n\r\n",
    "a header of a megabyte": b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 10**6 + b"\r\n\r\n",
    "ten thousand headers": b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    "a body that never ends": b"POST /metrics HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\n" + b"a" * 10**6,
    "no HTTP": bytes(range(256)) * 4000,
    "a path out of the pages": b"GET /../../etc/passwd HTTP/1.1\r\nConnection: close\r\n\r\n",
    "a verb of its own": b"\x1b]0;renamed\x07 /metrics HTTP/1.1\r\nConnection: close\r\n\r\n",
}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    served = Endpoint(0, {"/metrics": text_page(lambda: b"renio_steps_total 1\n")})
    yield served
    served.close()


@pytest.mark.parametrize("request_", LARGE.values(), ids=LARGE.keys())
def test_a_hostile_request_costs_little_and_the_next_scrape_is_answered(
    endpoint: Endpoint, request_: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answered = b""
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=20) as client, suppress(OSError):
        client.sendall(request_)  # the endpoint may hang up in the middle
        client.shutdown(socket.SHUT_WR)
        answered = client.recv(1000)
    assert re.match(rb"$|HTTP/1.0 (200|400|404|414|431) |<!DOCTYPE HTML>", answered), answered
    assert b"root:" not in answered
    with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/metrics", timeout=20) as page:
        assert page.read() == b"renio_steps_total 1\n"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB
    assert capfd.readouterr() == ("", "")
