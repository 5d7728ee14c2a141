"""The run's HTTP endpoint."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.exposition import ThreadingWSGIServer

from renio_pipeline.config import ConfigError

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]  # WSGI


class Endpoint:
    """Serves pages on every interface, each request on a thread of its own.

    Raises:
        ConfigError: the port is taken, or not for this user.
    """

    def __init__(self, port: int, pages: Mapping[str, App]) -> None:
        """``port``: 0 for any that is free. ``pages``: by path."""
        try:
            self._server = make_server("0.0.0.0", port, _by_path(pages), ThreadingWSGIServer, handler_class=_Silent)
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(
                f"metrics_port: {port} cannot be used: {reason}; choose another, 0 for any that is free, or null for none"
            ) from None
        self.port = int(self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def text_page(text: Callable[[], bytes]) -> App:
    """Text in Prometheus' format, made when it is asked for."""

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


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """A scrape is no news."""
