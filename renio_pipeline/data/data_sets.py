"""Folders and names on the hub: which files they have is the ``datasets`` library's to say."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.config.schema import Source
from renio_pipeline.data.files.compressed import ENDINGS
from renio_pipeline.data.files.csv_files import CsvFile
from renio_pipeline.data.files.json_files import json_format
from renio_pipeline.data.files.located import Format
from renio_pipeline.models.lfs import refuse_pointer

Files = Sequence[tuple[str, Format]]
_OWN = {"name", "version", "data_dir", "data_files", "description", "sep", "delimiter", "use_threads"}


def open_data_set(source: Source, key: str) -> Any:
    """A file that ``datasets`` reads, a folder, or a hub name, as a ``datasets.Dataset``, or as the text files that it is of.

    Raises:
        ConfigError: the source cannot be read or reached, or has no such subset or split.
    """
    import datasets

    path = str(source.path)
    place = Path(path)
    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        if place.is_file():
            return datasets.load_dataset("parquet", data_files=path, split="train")
        if place.is_dir() and ((place / "state.json").is_file() or (place / "dataset_dict.json").is_file()):
            for file in place.rglob("*.arrow"):
                refuse_pointer(file, key)
            return _saved(datasets.load_from_disk(path), source, key)
        builder = datasets.load_dataset_builder(path, source.subset)
        files = _files(builder, source, key)
        if files is not None:
            return files
        builder.download_and_prepare()
        return builder.as_dataset(split=source.split)
    except ConfigError:
        raise
    except ConnectionError as error:
        raise ConfigError(
            f"{key}: {path} is not a local file or folder, and the hub could not be reached ({error}); give the path of a "
            "local copy, or connect to a network"
        ) from error
    except Exception as error:  # builders, Arrow and the hub's client raise many types
        raise ConfigError(f"{key}: {path} cannot be read: {type(error).__name__}: {error}") from error
    finally:
        if not shown:
            datasets.enable_progress_bars()


def _files(builder: Any, source: Source, key: str) -> Files | None:
    """The text files of the split, on this machine and unpacked; None if the data set's format is another one."""
    import datasets

    config = builder.config
    kind = type(builder).__module__.rpartition(".")[2]
    by_split = {str(split): [str(file) for file in files] for split, files in (config.data_files or {}).items()}
    for file in (file for files in by_split.values() for file in files if Path(file).is_file()):
        refuse_pointer(Path(file), key)
    if kind not in ("json", "csv") or _has_options(config):
        return None
    wanted = source.split.split("+")
    if unknown := [name for name in wanted if name not in by_split]:
        raise ConfigError(
            f"{key.rpartition('.')[0]}.split: {source.path} has no split {unknown[0]!r}; it has {', '.join(by_split)} (a slice "
            "can be taken of Parquet files only)"
        )
    manager, found = datasets.DownloadManager(), list[tuple[str, Format]]()
    for name in (file for split in wanted for file in by_split[split]):
        alone = name.endswith(ENDINGS) and not name.endswith((".tar.gz", ".tar.zst"))  # unpacked where it is read
        for file in manager.iter_files(manager.download(name) if alone else manager.download_and_extract(name)):
            found.append((str(file), CsvFile(config.sep) if kind == "csv" else json_format(Path(file), name)))
    return found


def _has_options(config: Any) -> bool:
    """Whether a data set's card says how its files are to be read, which only ``datasets`` understands."""
    usual = type(config)()
    names = {field.name for field in dataclasses.fields(config)} - _OWN
    return any(getattr(config, name) != getattr(usual, name) for name in names)


def _saved(found: Any, source: Source, key: str) -> Any:
    section = key.rpartition(".")[0]
    if source.subset is not None:
        raise ConfigError(f"{section}.subset: {source.path} was saved by save_to_disk and has no subsets; leave it out")
    if not isinstance(found, dict):
        if source.split != "train":
            raise ConfigError(f"{section}.split: {source.path} has no splits; leave it out")
        return found
    if source.split not in found:
        raise ConfigError(f"{section}.split: {source.path} has no split {source.split!r}; it has {', '.join(found)}")
    return found[source.split]
