"""Modules beside a user's file: found by what it imports, and loaded from their source together with it, in any process.

They are private to the file. ``import helper`` in two files of two folders gives each its own, whichever folder a process was
started in, and on nodes that have neither. What the standard library or this project provides is never taken from there.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import linecache
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

PREFIX = "_renio_own_"  # of the names of modules from users' files
_OURS = {"renio_pipeline", "actors"}


@dataclass(frozen=True)
class Module:
    """A module beside a user's file, as it was read."""

    name: str  # that it is imported by: helper, or package.part
    path: str  # relative to the file's folder
    source: str


def beside(folder: Path, source: str) -> tuple[Module, ...]:
    """The modules and packages of ``folder`` that a source imports, and those that these import.

    Raises:
        OSError, UnicodeDecodeError, SyntaxError: one cannot be read; or a source declares an encoding that there is not.
    """
    found: dict[str, Module] = {}
    waiting = [source]
    seen: set[str] = set()
    while waiting:
        for name in _imported(waiting.pop()) - seen:
            seen.add(name)
            for module in _read(folder, name):
                found[module.name] = module
                waiting.append(module.source)
    return tuple(found[name] for name in sorted(found))


def _imported(source: str) -> set[str]:
    """The first parts of the names that a source imports; of one that cannot be parsed none, which its execution will say."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} if node.module else {alias.name for alias in node.names}
    return {name.partition(".")[0] for name in names}


def _read(folder: Path, name: str) -> Iterator[Module]:
    if name in sys.stdlib_module_names or name in _OURS:
        return
    package = folder / name
    if (package / "__init__.py").is_file():
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            dotted = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield Module(dotted, str(path.relative_to(folder)), importlib.util.decode_source(path.read_bytes()))
    elif (file := folder / f"{name}.py").is_file():
        yield Module(name, file.name, importlib.util.decode_source(file.read_bytes()))


def executed(name: str, source: str, path: str, file: str, modules: Sequence[Module]) -> ModuleType:
    """A new module ``name`` that runs ``source``, with ``modules`` as what it finds when it imports them.

    Args:
        path: what tracebacks call the file. The modules' files are beside it.
        file: the module's ``__file__``.

    Raises:
        Exception, SystemExit: what the source raises; the module is gone then.
    """
    _Finder.modules[name] = {module.name: (module, path, file) for module in modules}
    module = ModuleType(name)
    module.__file__, module.__package__, module.__path__ = file, name, []
    sys.modules[name] = module  # dataclasses and pydantic look their module up there
    try:
        _execute(module, name, source, path)
    except BaseException:
        for one in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
            del sys.modules[one]
        raise
    return module


def _execute(module: ModuleType, root: str, source: str, path: str) -> None:
    # Tracebacks show lines of code on nodes without the file too.
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _importer(root)}
    exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)


def _importer(root: str) -> Any:
    """``__import__`` for the code of a user's file: modules beside it are submodules of ``root``."""
    own = _Finder.modules[root]
    tops = {name.partition(".")[0] for name in own}

    def find(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        top = name.partition(".")[0]
        if level or top not in tops:
            return builtins.__import__(name, globals, locals, fromlist, level)
        module = importlib.import_module(f"{root}.{name}")
        for part in fromlist or ():
            if f"{name}.{part}" in own:
                importlib.import_module(f"{root}.{name}.{part}")
        return module if fromlist else sys.modules[f"{root}.{top}"]

    return find


class _Finder(MetaPathFinder):
    """Finds the modules beside users' files, by the name of the file's module and their own."""

    modules: ClassVar[dict[str, Mapping[str, tuple[Module, str, str]]]] = {}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        root, _, name = fullname.partition(".")
        found = self.modules.get(root, {}).get(name) if root.startswith(PREFIX) else None
        if found is None:
            return None
        module, shown, file = found
        place = os.path.join(os.path.dirname(file), module.path)
        loader = _Loader(root, module, os.path.join(os.path.dirname(shown), module.path))
        spec = ModuleSpec(fullname, loader, origin=place, is_package=Path(module.path).name == "__init__.py")
        spec.has_location = True
        return spec


class _Loader(Loader):
    def __init__(self, root: str, module: Module, path: str) -> None:
        self._root, self._module, self._path = root, module, path

    def exec_module(self, module: ModuleType) -> None:
        _execute(module, self._root, self._module.source, self._path)


sys.meta_path.append(_Finder())
