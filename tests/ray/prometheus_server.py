"""A real Prometheus with the project's configuration."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.ray.ports import free_port
from tests.ray.running_cluster import wait_until

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Prometheus:
    url: str

    def ask(self, path: str, **parameters: object) -> Any:
        """The ``data`` of an answer of the HTTP API. Raises AssertionError with what the server says is wrong."""
        query = urllib.parse.urlencode({k: str(v) for k, v in parameters.items()}, doseq=True)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {json.load(error)['error']}") from None

    def at(self, expression: str, moment: float) -> list[tuple[Labels, float]]:
        found = self.ask("query", query=expression, time=moment)
        return [(series["metric"], float(series["value"][1])) for series in found["result"]]

    def between(self, expression: str, start: float, end: float, step: float) -> list[tuple[Labels, list[float]]]:
        found = self.ask("query_range", query=expression, start=start, end=end, step=step)
        return [(series["metric"], [float(v) for _, v in series["values"]]) for series in found["result"]]

    def alerts(self) -> list[dict[str, Any]]:
        """The alert rules that it has loaded."""
        groups = self.ask("rules", type="alert")["groups"]
        return [rule for group in groups for rule in group["rules"]]


@contextmanager
def prometheus(config: Path, folder: Path, targets: Mapping[str, Path], *, every: str = "1s") -> Iterator[Prometheus]:
    """``config``, but for its intervals and for the files in which it finds its targets: ``targets``, by job."""
    folder.mkdir(parents=True)
    adapted = folder / "prometheus.yml"
    url = f"127.0.0.1:{free_port()}"
    adapted.write_text(yaml.safe_dump(_adapted(config, url, targets, every)))
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            ["prometheus", f"--config.file={adapted}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={url}"],
            stdout=log,
            stderr=log,
        )
    try:
        assert wait_until(lambda: _ready(f"http://{url}/-/ready"), 60, 0.2), (folder / "log").read_text()
        yield Prometheus(f"http://{url}")
    finally:
        server.terminate()
        server.wait(30)


def _ready(url: str) -> bool:
    try:
        return bool(urllib.request.urlopen(url, timeout=5).status == 200)
    except OSError:
        return False


def _adapted(config: Path, url: str, targets: Mapping[str, Path], every: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(config.read_text())
    found["global"] |= {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    found["rule_files"] = [str(config.parent / name) for name in found["rule_files"]]
    found.pop("alerting", None)
    for job in found["scrape_configs"]:
        for key in ("scrape_interval", "scrape_timeout"):
            job.pop(key, None)
        if "static_configs" in job:  # itself
            job["static_configs"] = [{"targets": [url]}]
            continue
        job["file_sd_configs"] = [{"files": [str(targets[job["job_name"]])], "refresh_interval": every}]
    return found
