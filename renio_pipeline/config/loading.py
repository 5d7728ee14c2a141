"""Read a run's configuration: YAML and ``key=value`` overrides in, a frozen, checked RunConfig out.

``load(path, overrides)`` raises ConfigError, whose text names the key, what was given and what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from renio_pipeline.config import variants
from renio_pipeline.config.checks import check_combinations
from renio_pipeline.config.errors import ConfigError
from renio_pipeline.config.explain import explain
from renio_pipeline.config.own.own_copies import OwnFiles
from renio_pipeline.config.paths import expanded, own_directory, shared_directory
from renio_pipeline.config.run_config import RunConfig


def load(
    path: str | Path | Sequence[str | Path],
    overrides: Sequence[str] = (),
    *,
    upgrade: Callable[[dict[str, Any]], dict[str, Any]] = lambda values: values,
    resume: bool = False,
    recorded: bool = False,
) -> RunConfig:
    """Read a file, or several of which a later one's keys count, and apply ``key.path=value`` overrides.

    The users' files that a run's ``config.yaml`` names are looked for as ``own_copies`` says.

    Args:
        upgrade: changes the resolved keys of a file that an earlier version wrote before they are checked.
        resume: so are those of the run that the configuration describes.
        recorded: the run's copies of them count, not what the files have become.

    Raises:
        ConfigError: a file is missing or no YAML, an override is malformed, or a key or value is not allowed.
    """
    paths = [expanded(str(one), "--config") for one in ([path] if isinstance(path, (str, Path)) else path)]
    for item in overrides:
        if not item.partition("=")[0].strip() or "=" not in item:
            raise ConfigError(f"override {item!r}: expected key=value, for example steps=10")
    layers: list[tuple[str, Callable[[], Any]]] = [(str(p), partial(OmegaConf.load, p)) for p in paths]
    if overrides:
        layers.append((f"{paths[-1]} with {' '.join(overrides)}", partial(OmegaConf.from_dotlist, list(overrides))))
    values: dict[str, Any] = {}
    runs = [Path(one).parent for one in paths]
    files = OwnFiles(runs, recorded=recorded)
    for source, read in layers:
        with _reading(source):
            layer: Any = OmegaConf.to_container(read())
            if not isinstance(layer, dict):
                raise ConfigError(f"{source}: expected a mapping of keys, got {type(layer).__name__}")
            _drop_keys_of_replaced_variants(values, layer, files)
            layer = _into_lists(values, layer)
            values = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.merge(values, layer)))
    with _reading(layers[-1][0]):
        resolved: Any = OmegaConf.to_container(OmegaConf.create(values), resolve=True, throw_on_missing=True)
    if resume:
        files = OwnFiles([*_directories(resolved), *runs])
    return parse(upgrade(resolved), source=" + ".join(map(str, paths)), files=files)


def load_to_resume(path: str | Path | Sequence[str | Path], overrides: Sequence[str] = ()) -> RunConfig:
    """As ``load``, of a run that may be there already: its record says where users' files are. Raises ConfigError."""
    return load(path, overrides, resume=True)


@contextmanager
def _reading(source: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ConfigError(f"configuration file {source} does not exist") from None
    except IsADirectoryError:
        raise ConfigError(f"configuration file {source} is a folder") from None
    except (OSError, UnicodeDecodeError, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"{source}: {error}") from None


def parse(values: Any, *, source: str = "configuration", files: OwnFiles | None = None) -> RunConfig:
    """Check a plain mapping. Raises ConfigError, one line a fault.

    ``files``: reads the users' files that it names; None: from where they are.
    """
    try:
        config = RunConfig.model_validate(values, context=files)
        check_combinations(config)
    except ValidationError as error:
        lines = [f"{source}:"] + [f"  {explain(fault, values)}" for fault in error.errors()]
        raise ConfigError("\n".join(lines)) from None
    except ValueError as error:  # a combination of keys; a ValidationError is one too
        raise ConfigError(f"{source}:\n  {error}") from None
    return config


def _directories(values: Mapping[str, Any]) -> Iterator[Path]:
    """Where the run that a configuration describes may be; what is wrong with the keys ``parse`` says."""
    given, name = values.get("run_dir"), values.get("name", RunConfig.model_fields["name"].default)
    with suppress(ConfigError):
        if isinstance(given, str):
            yield Path(expanded(given))
        elif isinstance(name, str) and given is None:
            yield Path(own_directory(name))
            yield Path(shared_directory(name))


def _into_lists(base: Any, layer: Any, key: str = "") -> Any:
    """``layer`` with each ``{"1": {"weight": 2}}`` that stands over a list made that list, with the changes to its entries.

    Raises:
        ConfigError: the list has no such entry.
    """
    if not isinstance(layer, dict):
        return layer
    if isinstance(base, list) and layer and all(str(index).isdecimal() for index in layer):
        found = list(base)
        for index, given in layer.items():
            if int(index) >= len(found):
                raise ConfigError(f"{key}.{index}: there is no such entry; {key} has {len(found)}, counted from 0")
            old = found[int(index)]
            inner = _into_lists(old, given, f"{key}.{index}")
            both = isinstance(old, dict) and isinstance(inner, dict)
            found[int(index)] = OmegaConf.to_container(OmegaConf.merge(old, inner)) if both else inner
        return found
    inside = base if isinstance(base, dict) else {}
    return {name: _into_lists(inside.get(name), value, f"{key}.{name}" if key else str(name)) for name, value in layer.items()}


def _drop_keys_of_replaced_variants(base: dict[str, Any], overrides: dict[str, Any], files: OwnFiles) -> None:
    """``weighting.type=uniform`` over a file's renio section leaves out the keys that only renio has; ``teachers`` over a
    file's ``teacher`` leaves that out."""
    if overrides.get("teachers") is not None and "teacher" not in overrides:
        base.pop("teacher", None)
    for kind in variants.KINDS:
        given, section = overrides.get(kind), base.get(kind)
        if not (isinstance(given, dict) and isinstance(section, dict)):
            continue
        old, new = variants.chosen_or_none(kind, section, files), variants.chosen_or_none(kind, section | given, files)
        if old and new and old is not new:
            gone = old.model_fields.keys() - new.model_fields.keys()
            base[kind] = {key: value for key, value in section.items() if key not in gone}
