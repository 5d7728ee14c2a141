"""The picture of the dashboard, from a server that answers as Prometheus does."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from PIL import Image

from deploy.grafana import picture

BOARD: dict[str, Any] = json.loads(picture.BOARD.read_text())
START, END = 1000.0, 1240.0


class Fake(BaseHTTPRequestHandler):
    runs: dict[str, float] = {}  # noqa: RUF012  when each was last seen; a server has handlers of its own
    asked: list[dict[str, str]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        url = urlparse(self.path)
        asked = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.asked.append(asked)
        body = json.dumps({"data": self.answer(url.path.rpartition("/")[2], asked)}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def answer(self, verb: str, asked: dict[str, str]) -> Any:
        if verb == "config":
            return {"yaml": "global: {scrape_interval: 1m30s}"}
        if asked["query"] == "time()":
            return {"result": [END + 60, str(END + 60)]}
        if asked["query"] == "renio_step[6h]":
            return {"result": [{"metric": {"run": r}, "values": [[START, "1"], [end, "9"]]} for r, end in self.runs.items()]}
        if verb == "query":
            return {"result": [{"metric": {"pool": "trainer"}, "value": [END, "0.95"]}]}
        kinds = ("1.0", "2.0", "+Inf") if "_bucket" in asked["query"] else ("",)
        values = [[START, "1"], [START + 60, "NaN"], [END, "2"]]
        return {"result": [{"metric": {"le": le} if le else {}, "values": values} for le in kinds]}

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def prometheus() -> Iterator[tuple[str, type[Fake]]]:
    class Handler(Fake):
        runs, asked = {"old": 1100.0, "new": END}, []

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", Handler
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def one_of_each() -> dict[str, Any]:
    return BOARD | {"panels": list({panel["type"]: panel for panel in BOARD["panels"]}.values())}


def test_a_picture_shows_what_the_queries_of_the_latest_run_give(prometheus: tuple[str, type[Fake]], tmp_path: Path) -> None:
    url, fake = prometheus
    server = picture.server_of(url, None)
    assert (server.run, server.start, server.end, server.rate_seconds) == ("new", START, END, 4 * 90)
    board = one_of_each()
    figure = picture.draw(board, server)
    assert len(figure.axes) == len([p for p in board["panels"] if p["type"] in ("timeseries", "heatmap")]) == 2
    texts = [text.get_text() for text in figure.texts]
    assert all(any(panel["title"] in text for text in texts) for panel in board["panels"])
    queries = [asked["query"] for asked in fake.asked if asked]
    assert not [query for query in queries if re.search(r"\$[a-zA-Z_{]", query)]
    assert any('run="new"' in query for query in queries)
    picture.save(figure, tmp_path / "board.png")
    assert Image.open(tmp_path / "board.png").size[0] == round(24 * picture.COLUMN * 96)


def test_a_run_can_be_chosen_and_one_that_was_never_seen_is_said_so(prometheus: tuple[str, type[Fake]]) -> None:
    url, _ = prometheus
    assert picture.server_of(url, "old").end == 1100
    with pytest.raises(SystemExit, match="has seen no run other in six hours"):
        picture.server_of(url, "other")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.5, "percentunit", "50%"), (0.012, "percentunit", "1.2%"), (0, "percentunit", "0%"), (42, "percent", "42%"),
     (2048, "bytes", "2.05 kB"), (3e9, "Bps", "3 GB/s"), (90, "s", "1.5 min"), (1.25, "s", "1.25 s"),
     (3, "suffix: nats", "3 nats"), (12345.6, "short", "12346")],
)  # fmt: skip
def test_figures_are_written_in_their_units(value: float, unit: str, text: str) -> None:
    assert picture.formatted(value, unit) == text
