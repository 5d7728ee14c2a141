"""A class from a Python file of the user's own, named ``path.py:Class``: tasks, weightings and objectives share this loader.

A class is identified by its source, not by its file: what a driver has read and checked is what its actors run, on nodes that
do not have the file too.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import linecache
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from renio_pipeline.config.errors import ConfigError

HIDDEN = (contextlib.__file__,)


class OwnClassError(ConfigError):
    """A class of the user's own raised an exception. The text has its key and the traceback."""


@dataclass(frozen=True)
class OwnFile:
    """A user's file as it was read, and the name of the class in it."""

    path: str  # as the user wrote it
    cls: str
    source: str

    @classmethod
    def read(cls, given: str, key: str) -> OwnFile:
        """Read ``given``, a ``path.py:Class`` relative to the working directory.

        Args:
            key: the configuration key that names it, for the error.

        Raises:
            ConfigError: no class is named, or there is no such file.
        """
        path, _, name = given.rpartition(":") if not given.endswith(".py") else (given, "", "")
        if not path or not name:
            raise ConfigError(f"{key}: {given} names no class; expected path.py:Class")
        file = Path(path)
        if not file.is_file():
            raise ConfigError(f"{key}: {path} is not a file (relative to {Path.cwd()})")
        try:
            return cls(path, name, importlib.util.decode_source(file.read_bytes()))
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
        identity = f"{Path(self.path).resolve()}\n{self.source}"
        module = ModuleType(f"_renio_own_{hashlib.sha1(identity.encode()).hexdigest()[:12]}")
        module.__file__ = self.path
        # Tracebacks show lines of code on nodes without the file too.
        linecache.cache[self.path] = (len(self.source), None, self.source.splitlines(keepends=True), self.path)
        sys.modules[module.__name__] = module  # dataclasses and pydantic look their module up there
        try:
            exec(compile(self.source, self.path, "exec", dont_inherit=True), module.__dict__)
        except (Exception, SystemExit) as error:
            del sys.modules[module.__name__]
            raise ConfigError(f"{key}: {self.path} cannot be imported:\n{traceback_of(error)}") from error
        return module


def traceback_of(error: BaseException, *hidden: str) -> str:
    """The error's traceback without the frames of this file and of the files ``hidden``: the fault is not there."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename not in (__file__, *hidden)]
    frames = [f for f in frames if not f.filename.startswith("<frozen importlib")]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames), *traceback.format_exception_only(error)]
    return "".join(lines).rstrip()
