"""A fake of the Hugging Face hub: the part of its HTTP interface that an upload uses, on this machine, in this process."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_" + "aFakeTokenOfTheTests0"
LFS_BYTES = 10_000  # from this size on a file goes the way of large ones


@dataclass
class FakeHub:
    """What has been pushed, and how the hub misbehaves."""

    private: dict[str, bool] = field(default_factory=dict)  # by repository
    branches: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)  # repository, branch, path: content
    uploads: dict[str, bytes] = field(default_factory=dict)  # large files, by their sha256, committed or not
    requests: list[str] = field(default_factory=list)
    refuse: dict[str, int] = field(default_factory=dict)  # part of a path: the status that it is answered with
    lose: str = ""  # a path that a commit takes and does not keep
    url: str = ""

    def answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, Any]:
        self.requests.append(f"{method} {path}")
        if token != TOKEN:
            return 401, {"error": "Invalid credentials in Authorization header"}
        for part, status in self.refuse.items():
            if part in path:
                return status, {"error": f"refused with {status}"}
        parts = unquote(path).strip("/").split("/")
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if parts[0] == "lfs":
            self.uploads[parts[1]] = body
            return (200, {}) if hashlib.sha256(body).hexdigest() == parts[1] else (400, {"error": "another content"})
        if path.endswith(".git/info/lfs/objects/batch"):
            asked = json.loads(body)["objects"]
            return 200, {"objects": [{**o, "actions": {"upload": {"href": f"{self.url}/lfs/{o['oid']}"}}} for o in asked]}
        repo, rest = "/".join(parts[2:4]), parts[4:]
        if repo not in self.branches:
            return 404, {"error": "Repository not found"}
        if not rest:
            return 200, {"id": repo, "private": self.private[repo], "sha": "0", "siblings": []}
        return self._repo(repo, rest, body)

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in self.branches:
            return 409, {"error": "You already created this model repo", "url": f"{self.url}/{repo}"}
        self.branches[repo], self.private[repo] = {"main": {}}, asked.get("visibility") == "private"
        return 200, {"url": f"{self.url}/{repo}"}

    def _validate(self, card: str) -> tuple[int, Any]:
        """Only what the tests get wrong: the hub's own rules are its secret."""
        data = yaml.safe_load(card.split("---\n")[1])
        if "license" in data and data["license"] not in ("apache-2.0", "mit", "other"):
            return 400, {"errors": [{"message": '"license" must be one of [apache-2.0, mit, other]'}], "warnings": []}
        return 200, {"errors": [], "warnings": []}

    def _repo(self, repo: str, rest: list[str], body: bytes) -> tuple[int, Any]:
        verb, revision = rest[0], "/".join(rest[1:])
        if verb == "branch":
            if revision in self.branches[repo]:
                return 409, {"error": "Reference already exists"}
            self.branches[repo][revision] = {}
            return 200, {}
        if verb == "tree":
            branch = revision.partition("@")[0]
            files = self.branches[repo][branch].items()
            return 200, [{"type": "file", "path": p, "size": len(c), "oid": "0"} for p, c in files]
        if revision not in self.branches[repo]:
            return 404, {"error": f"Invalid rev id: {revision}"}
        if verb == "preupload":
            modes = {True: "lfs", False: "regular"}
            return 200, {
                "files": [
                    {"path": f["path"], "uploadMode": modes[f["size"] >= LFS_BYTES], "shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
            }
        assert verb == "commit", rest
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header" or value["path"] == self.lose:
                continue
            content = base64.b64decode(value["content"]) if line["key"] == "file" else self.uploads[value["oid"]]
            self.branches[repo][revision][value["path"]] = content
        sha = f"{revision}@1"
        return 200, {"commitUrl": f"{self.url}/{repo}/commit/{sha}", "commitOid": sha}


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            path = urlsplit(self.path).path
            status, reply = hub.answer(self.command, path, TOKEN if path.startswith("/lfs/") else token, body)
            data = json.dumps(reply).encode()
            self.send_response(status)
            if status >= 400:
                self.send_header("X-Error-Message", str(reply.get("error", "")))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_HEAD = do_GET = do_POST = do_PUT = _do  # noqa: N815

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
