"""A class from a Python file of the user's own, named ``path.py:Class``: tasks, weightings and objectives share this loader.

A class is identified by its source and that of the modules beside it, not by its file: what a driver has read and checked is
what its actors and workers run, on nodes that do not have the file too.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from renio_pipeline.config.errors import ConfigError
from renio_pipeline.config.own import own_modules

HIDDEN = (contextlib.__file__,)


def is_own(name: str) -> bool:
    """Whether a name is of a class in a user's file."""
    return ".py:" in name or name.endswith(".py")


class OwnClassError(ConfigError):
    """A class of the user's own raised an exception. The text has its key and the traceback."""


@dataclass(frozen=True)
class OwnFile:
    """A user's file as it was read, and the name of the class in it."""

    path: str  # as the user wrote it
    cls: str
    source: str
    place: str = ""  # the absolute path where it was read
    modules: tuple[own_modules.Module, ...] = ()  # that it imports from its own folder

    @classmethod
    def read(cls, given: str, key: str, *, place: Path | None = None) -> OwnFile:
        """Read ``given``, a ``path.py:Class`` relative to the working directory.

        Args:
            key: the configuration key that names it, for the error.
            place: where the file is, if not there.

        Raises:
            ConfigError: no class is named, or there is no such file.
        """
        path, _, name = given.rpartition(":") if not given.endswith(".py") else (given, "", "")
        if not path or not name:
            raise ConfigError(f"{key}: {given} names no class; expected path.py:Class")
        file = place or Path(path)
        if not file.is_file():
            raise ConfigError(f"{key}: {path} is not a file (relative to {Path.cwd()})")
        try:
            source = importlib.util.decode_source(file.read_bytes())
            return cls(path, name, source, str(file.absolute()), own_modules.beside(file.absolute().parent, source))
        except (OSError, UnicodeDecodeError, SyntaxError) as error:
            raise ConfigError(f"{key}: {path} cannot be read: {error}") from None

    def load(self, key: str) -> type:
        """Execute the source as a module of its own, and return the class.

        Raises:
            ConfigError: the module raises (with its traceback), or has no such class.
        """
        found = getattr(self._module(key), self.cls, None)
        if not isinstance(found, type):
            raise ConfigError(f"{key}: {self.path} has no class {self.cls!r}")
        return found

    @contextmanager
    def running(self, what: str, key: str, *, refuses: bool = False) -> Iterator[None]:
        """Within it the class's own code runs.

        Args:
            what: which part of it, for the error.
            refuses: it may raise ValueError, which refuses the configuration.

        Raises:
            OwnClassError: it raised anything else.
        """
        try:
            yield
        except (Exception, SystemExit) as error:
            if isinstance(error, ValueError if refuses else ConfigError):
                raise
            shown = traceback_of(error, *HIDDEN)
            raise OwnClassError(f"{key}: {what} of {self.cls} in {self.path} raised:\n{shown}") from error

    def _module(self, key: str) -> ModuleType:
        identity = "\n".join([self.place, self.source, *(f"{one.name}\n{one.source}" for one in self.modules)])
        name = f"{own_modules.PREFIX}{hashlib.sha1(identity.encode()).hexdigest()[:12]}"
        folder = str(Path(self.place).parent)
        if self.place and Path(folder).is_dir() and folder not in sys.path:
            sys.path.append(folder)  # for what is imported in other ways than by an import statement
        try:
            return own_modules.executed(name, self.source, self.path, self.place or self.path, self.modules)
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{key}: {self.path} cannot be imported:\n{traceback_of(error)}") from error


def traceback_of(error: BaseException, *hidden: str) -> str:
    """The error's traceback without the frames of this file and of the files ``hidden``: the fault is not there."""
    loaders = (__file__, own_modules.__file__, importlib.__file__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename not in (*loaders, *hidden)]
    frames = [f for f in frames if not f.filename.startswith("<frozen importlib")]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames), *traceback.format_exception_only(error)]
    return "".join(lines).rstrip()
