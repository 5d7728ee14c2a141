"""The run's HTTP endpoint."""

from __future__ import annotations

import gzip
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.exposition import ThreadingWSGIServer

from renio_pipeline.config import ConfigError

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]  # WSGI
MOST_OPEN = 32  # open connections: each has a thread in the run's own process
SILENT_SECONDS = 30.0  # how long a connection may be silent


class Endpoint:
    """Serves pages on every interface, each request on its own thread, with at most ``MOST_OPEN`` connections at a time.

    Raises:
        ConfigError: the port is in use, or not permitted for this user.
    """

    def __init__(self, port: int, pages: Mapping[str, App]) -> None:
        """
        Args:
            port: 0 for any free port.
            pages: the pages by path.
        """
        try:
            self._server = make_server("0.0.0.0", port, _by_path(pages), _Server, handler_class=_Silent)
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(
                f"metrics_port: {port} cannot be used: {reason}; choose another port, 0 for any free port, or null for none"
            ) from None
        self.port = int(self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def text_page(text: Callable[[], bytes]) -> App:
    """A page of text in Prometheus' format, generated on request."""

    def page(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        body, headers = text(), [("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)]
        if "gzip" in environ.get("HTTP_ACCEPT_ENCODING", ""):
            body, headers = gzip.compress(body, 1), [*headers, ("Content-Encoding", "gzip")]
        start("200 OK", headers)
        return [body]

    return page


def _by_path(pages: Mapping[str, App]) -> App:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        page = pages.get(environ["PATH_INFO"].rstrip("/"))
        if page is not None:
            return page(environ, start)
        start("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"there are {', '.join(pages)}\n".encode()]

    return app


class _Server(ThreadingWSGIServer):
    """Closes its oldest connection for a new one, so that a client with many or slow connections cannot block scrapes."""

    def __init__(self, *args: Any) -> None:
        self._open: deque[socket.socket] = deque()
        self._lock = threading.Lock()  # shared by the accepting thread and the answering threads
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.append(request)
            if len(self._open) > MOST_OPEN:
                with suppress(OSError):
                    self._open.popleft().shutdown(socket.SHUT_RDWR)  # its reader then sees the end of the stream
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock, suppress(ValueError):  # it may already have been dropped as the oldest
            self._open.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: a client that disconnects or falls silent is no event."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Silent(WSGIRequestHandler):
    timeout = SILENT_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a scrape is no event."""
