"""What a process checks before it writes into a run's directory: that the run still holds the directory's lease.

A driver may be stopped for minutes (a suspended machine, SIGSTOP), lose its lease meanwhile, and wake. The lease's random token
is its fence: every writer of the run, in whichever process or on whichever node, looks for the token in the lease's file before
it writes, and the driver that took over has removed that file.
"""

from __future__ import annotations

import errno
import io
import os
from dataclasses import dataclass
from pathlib import Path

GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)  # ESTALE: of a network file system, whose server has removed it


class LeaseLostError(RuntimeError):
    """Another driver writes the run's directory now. This one must end, and write nothing more."""


def own_file(path: Path, flags: int = os.O_TRUNC) -> io.FileIO:
    """A file of the run, open for writing; made where there is none.

    Raises OSError, also where the name is a symbolic link: in a folder that others may write to it leads anywhere.
    """
    return io.FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | flags, 0o666), "wb")


def write_all(file: io.FileIO, data: bytes) -> None:
    """``file.write`` may write a part."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


@dataclass(frozen=True, slots=True)
class Fence:
    """Travels to trainer ranks. ``NO_FENCE`` is that of a folder that nobody else writes."""

    path: str  # the lease's file; empty: there is no lease to look at
    token: str

    def check(self) -> None:
        """Raises LeaseLostError if the run's lease is another's or gone; OSError if that cannot be read.

        The file is opened anew each time: a network file system asks its server then, whatever it has cached.
        """
        if not self.path:
            return
        try:
            with open(self.path, "rb", buffering=0) as file:
                if self.token.encode() in file.read(4096):
                    return
        except OSError as error:
            if error.errno not in GONE:
                raise
        raise LeaseLostError(
            f"{Path(self.path).parent.parent}: another driver has taken this run's directory over, or its lease was removed; "
            "this one ends, and writes nothing more"
        )

    def append(self, path: Path, data: bytes) -> None:
        """Append to a file of the run. Raises as ``check`` does, and OSError."""
        self._write(path, os.O_APPEND, data)

    def write(self, path: Path, data: bytes) -> None:
        """Write a file of the run anew. Raises as ``check`` does, and OSError."""
        self._write(path, 0, data)

    def _write(self, path: Path, flags: int, data: bytes) -> None:
        """Opened, then checked: a driver that takes over replaces or removes the files that it cuts, so that the bytes of a
        process that is stopped between its check and its write go to a file that has no name any more."""
        self.check()  # a file that is not there yet is not created by a driver that has no lease
        with own_file(path, flags) as file:
            self.check()
            if not flags:
                file.truncate(0)
            write_all(file, data)


NO_FENCE = Fence("", "")
