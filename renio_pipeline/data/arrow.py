"""Sources that the ``datasets`` library reads: Parquet, JSON arrays, folders and the hub, as memory-mapped Arrow tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.config.schema import Source
from renio_pipeline.data.records import Layout, Scan
from renio_pipeline.data.rows import Read
from renio_pipeline.types import Row

_BATCH = 1000


class ArrowRows(Read):
    """The rows of a table. Only the columns that a Row has are read."""

    def __init__(self, table: Any, layout: Layout) -> None:
        """Check every row once.

        Args:
            table: a ``datasets.Dataset``.
            layout: which column is which field.

        Raises:
            ConfigError: the column of the problem is missing, or a row is bad (with its number, from 1).
        """
        self.layout = layout
        if table.num_rows and layout.name("problem") not in table.column_names:
            maps = layout.key_of("problem").rpartition(".")[0]
            raise ConfigError(
                f"{layout.where(1)}: no field {layout.name('problem')!r}; there are "
                f"{', '.join(map(repr, table.column_names))} ({maps} maps names)"
            )
        self._table = table.select_columns(
            [n for n in dict.fromkeys(map(layout.name, layout.fields)) if n in table.column_names]
        )
        scan, number = Scan(layout), 0
        for batch in self._table.iter(_BATCH):
            for values in zip(*batch.values(), strict=True):
                number += 1
                scan.add(dict(zip(batch, values, strict=True)), number)
        self.notes = scan.finish(self)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def row(self, index: int) -> Row:
        return self.layout.row(self._table[index], index + 1)


def open_table(source: Source, key: str) -> Any:
    """Open a file, a folder or a hub name as a ``datasets.Dataset``.

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
            kind = "parquet" if place.suffix == ".parquet" else "json"
            return datasets.load_dataset(kind, data_files=path, split="train")
        if place.is_dir() and ((place / "state.json").is_file() or (place / "dataset_dict.json").is_file()):
            return _saved(datasets.load_from_disk(path), source, key)
        return datasets.load_dataset(path, source.subset, split=source.split)
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
