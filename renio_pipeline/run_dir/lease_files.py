"""A lease on disk: ``.lease/`` in a run's directory, and the one step that only one of several processes can make.

    .lease/claim-TOKEN    a process that wants the lease: its record, complete
    .lease/7              the lease of the seventh holder since the folder was made. The highest number holds

A process takes the lease by linking its claim to the next number. ``link`` fails if the name is taken, atomically: on local
file systems, and on NFS and Lustre, where the server decides. So of several processes that want a number one gets it. Where
there are no hard links, the file is created exclusively instead. A number is removed only when there is a higher one, or with
the whole folder: a process that was slow and links a number that is free again finds a higher one, and has lost.

A released lease goes with its folder, which first gets another name, all at once. A process that takes part works in the folder
that it has opened, whatever its name is by then, and looks at the end whether its lease is where the next one will look for it.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from renio_pipeline.run_dir.holders import MOST_BYTES, Holder, decoded

FOLDER = ".lease"
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
TORN_TRIES, TORN_SECONDS = 5, 0.05  # a record that is being replaced may be read half old, half new


class Claim:
    """A process's claim in a folder of leases that it has opened. Everything raises OSError."""

    def __init__(self, folder: Path, handle: int, holder: Holder) -> None:
        self.folder, self._handle = folder, handle
        self._name, self._record = f"claim-{holder.token}", holder.encoded()
        self._create(self._name)

    def newest(self) -> int:
        """The number of the lease; 0 if there is none."""
        return max(map(int, self._numbers()), default=0)

    def win(self, number: int) -> bool:
        """Make the claim the lease ``number``. False: another process was faster."""
        try:
            os.link(self._name, str(number), src_dir_fd=self._handle, dst_dir_fd=self._handle)
        except FileExistsError:
            # The answer to a link that was made may be lost on a network, and the link asked for again.
            if not os.path.samestat(self._stat(self._name), self._stat(str(number))):
                return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            try:
                self._create(str(number))
            except FileExistsError:
                return False
        if self.newest() == number:
            return True
        self._unlink(str(number))  # too late: the lease has gone on to higher numbers
        return False

    def remove_earlier(self, number: int) -> bool:
        """Remove the leases before ``number``, which is this process's, after which their holders' checks fail.

        False: the folder was removed meanwhile. Where it raises, ``number`` is given back.
        """
        try:
            for name in self._numbers():
                if int(name) < number:
                    self._unlink(name)
        except OSError:
            self._unlink(str(number))
            raise
        try:
            return (self.folder / str(number)).read_bytes() == self._record
        except FileNotFoundError:
            return False

    def withdraw(self) -> None:
        """Remove the claim, and the folder where nothing is left in it."""
        with suppress(OSError):
            self._unlink(self._name)
            self.folder.rmdir()

    def _numbers(self) -> list[str]:
        return [name for name in os.listdir(self._handle) if name.isdecimal()]

    def _create(self, name: str) -> None:
        """A reader may see the file before it is complete, unless nobody looks for its name."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(name, flags, 0o666, dir_fd=self._handle), "wb", buffering=0) as file:
            file.write(self._record)
            os.fsync(file.fileno())

    def _stat(self, name: str) -> os.stat_result:
        return os.stat(name, dir_fd=self._handle)

    def _unlink(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._handle)


@contextmanager
def claim(folder: Path, holder: Holder) -> Iterator[Claim]:
    """A claim in ``folder``, which is made. Raises OSError; FileNotFoundError if the folder was removed meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        made = Claim(folder, handle, holder)
        try:
            yield made
        finally:
            made.withdraw()
    finally:
        os.close(handle)


def read(path: Path) -> tuple[bytes, Holder | None]:
    """A lease's bytes, and the holder that they name: None if they are no record. Raises OSError."""
    record, found = b"", None
    for _ in range(TORN_TRIES):
        with open(path, "rb", buffering=0) as file:
            record = file.read(2 * MOST_BYTES)
        found = decoded(record)
        if found is not None:
            break
        time.sleep(TORN_SECONDS)
    return record, found


def replace(path: Path, holder: Holder) -> bool:
    """Write a holder's record over its own, in place. False if the lease is another's or gone. Raises OSError.

    Never by a new file of this name: the name may have been removed by a process that took over, and must stay removed.
    """
    handle = os.open(path, os.O_RDWR)
    try:
        if holder.token.encode() not in os.pread(handle, 2 * MOST_BYTES, 0):
            return False
        os.pwrite(handle, holder.encoded(), 0)
        os.fsync(handle)
    finally:
        os.close(handle)
    return True


def remove(folder: Path, token: str) -> None:
    """Remove the folder of a lease that this process holds. Raises OSError."""
    aside = folder.with_name(f"{FOLDER}-{token}")
    folder.rename(aside)
    shutil.rmtree(aside)
