"""An actor that examines its node. Runs there: see ``actors.doctor``."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.doctor.probes import machine, software

PATIENCE = 5.0  # seconds until a network file system must show another node's new file


class Examiner:
    def __init__(self, token: str) -> None:
        self._token = token  # what its listening socket answers
        self._listener: socket.socket | None = None

    def report(self, names: Sequence[str]) -> dict[str, Any]:
        """What is installed of ``names``, and the machine."""
        return {"software": software(names), "machine": machine()}

    def time(self) -> float:
        return time.time()

    def probe_folder(self, folder: str, mine: str, text: str) -> dict[str, Any]:
        """Look for ``folder/driver`` with ``text`` in it, and answer with the file ``folder/mine``."""
        deadline, error = time.monotonic() + PATIENCE, ""
        while True:
            try:
                if (Path(folder) / "driver").read_text(encoding="utf-8") == text:
                    break
            except OSError as failure:
                error = failure.strerror or str(failure)
            if time.monotonic() > deadline:
                return {"seen": False, "answered": False, "error": error}
            time.sleep(0.2)
        try:
            with (Path(folder) / mine).open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as failure:
            return {"seen": True, "answered": False, "error": failure.strerror or str(failure)}
        return {"seen": True, "answered": True, "error": ""}

    def missing(self, folders: Sequence[tuple[str, str]]) -> list[str]:
        """Of (key, model folder) those that are not here."""
        return [f"{key}: {folder}" for key, folder in folders if not (Path(folder) / "config.json").is_file()]

    def free_port(self) -> int:
        with socket.socket() as probe:
            probe.bind(("", 0))
            return int(probe.getsockname()[1])

    def listen(self) -> int:
        """The port of a socket on all interfaces, as a rendezvous has it; it sends this examiner's token to who connects."""
        self._listener = socket.create_server(("", 0), backlog=128)
        threading.Thread(target=self._answer, args=(self._listener,), daemon=True).start()
        return int(self._listener.getsockname()[1])

    def _answer(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(self._token.encode())

    def reach(self, targets: Sequence[tuple[str, str, int, str]], seconds: float) -> list[tuple[str, int, str | None]]:
        """For each (name, address, port, token): the name, the port, and why it was not reached; None if it was."""
        return [(name, port, _reach(address, port, token, seconds)) for name, address, port, token in targets]


def _reach(address: str, port: int, token: str, seconds: float) -> str | None:
    try:
        with socket.create_connection((address, port), timeout=seconds) as connection:
            found = connection.recv(len(token)).decode(errors="replace")
    except OSError as error:
        return error.strerror or str(error)
    return None if found == token else f"something else answers at {address}"
