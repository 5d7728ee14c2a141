"""Compressed text files: the rows of the plain ones, with a memory that does not grow, and a name for what is broken."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.config.schema import Source
from renio_pipeline.data.files.compressed import opened
from renio_pipeline.data.sources import load_rows
from renio_pipeline.run_dir.data_record import Origin, Prints
from renio_pipeline.types import Row

RECORDS = [{"id": f"r{i}", "problem": f"π {i}\n" * (i % 5 + 1), "answer": str(i)} for i in range(300)]
LINES = "".join(json.dumps(r) + "\n" for r in RECORDS).encode()
FORMS: dict[str, bytes] = {
    "jsonl": LINES,
    "json": json.dumps(RECORDS).encode(),
    "csv": ("id,problem,answer\n" + "".join(f'{r["id"]},"{r["problem"]}",{r["answer"]}\n' for r in RECORDS)).encode(),
    "tsv": ("id\tproblem\tanswer\n" + "".join(f'{r["id"]}\t"{r["problem"]}"\t{r["answer"]}\n' for r in RECORDS)).encode(),
}


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return bytes(sink.getvalue())


PACK: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "zst": zstd}


def rows_of(path: Path) -> list[Row]:
    rows = load_rows(Source(path=str(path)))
    return [rows[i] for i in range(len(rows))]


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("form", FORMS)
def test_a_compressed_file_has_the_rows_of_the_plain_one(form: str, ending: str, tmp_path: Path) -> None:
    plain, packed = tmp_path / f"a.{form}", tmp_path / f"b.{form}.{ending}"
    plain.write_bytes(FORMS[form])
    packed.write_bytes(PACK[ending](FORMS[form]))
    assert rows_of(packed) == rows_of(plain)
    rows = load_rows(Source(path=str(packed)))
    assert rows[250] == rows_of(plain)[250], "a row is read where it is, not from the start"


@pytest.mark.parametrize("ending", PACK)
def test_a_folder_of_compressed_files_is_read_as_one_of_plain_ones(ending: str, tmp_path: Path) -> None:
    for folder, pack, suffix in (("plain", bytes, ""), ("packed", PACK[ending], f".{ending}")):
        (tmp_path / folder).mkdir()
        for name, part in (
            ("train-0", LINES[: LINES.index(b"\n", 5000) + 1]),
            ("train-1", LINES[LINES.index(b"\n", 5000) + 1 :]),
        ):
            (tmp_path / folder / f"{name}.jsonl{suffix}").write_bytes(pack(part))
    assert rows_of(tmp_path / "packed") == rows_of(tmp_path / "plain")
    assert len(rows_of(tmp_path / "packed")) == 300


@pytest.mark.parametrize("ending", PACK)
def test_several_archives_end_to_end_are_one_file(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.jsonl.{ending}"
    half = LINES.index(b"\n", 5000) + 1
    path.write_bytes(PACK[ending](LINES[:half]) + PACK[ending](LINES[half:]))
    assert len(rows_of(path)) == 300


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "cut at its end": lambda data: data[:-3],
    "with a wrong byte": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0xFF]) + data[len(data) // 2 + 1 :]
    ),
    "with more behind it": lambda data: data + b"more",
}


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_archive_is_named(how: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.jsonl.{ending}"
    path.write_bytes(BROKEN[how](PACK[ending](LINES)))
    with pytest.raises(ConfigError, match=rf"data.path: .*a.jsonl.{ending} cannot be read: it is damaged"):
        load_rows(Source(path=str(path)))


def test_what_is_not_read_here_says_what_is(tmp_path: Path) -> None:
    for name, data in (
        ("a.jsonl.bz2", bz2.compress(LINES)),
        ("a.jsonl.xz", lzma.compress(LINES)),
        ("a.jsonl", bz2.compress(LINES)),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ConfigError, match=r"packed with (bzip2|xz); unpack it, or pack it with gzip or zstd"):
            load_rows(Source(path=str(tmp_path / name)))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jsonl", LINES)
    with pytest.raises(ConfigError, match="packed with zip"):
        load_rows(Source(path=str(tmp_path / "a.zip")))


def test_names_that_say_something_else_than_the_file_is(tmp_path: Path) -> None:
    (tmp_path / "plain.jsonl.gz").write_bytes(LINES)
    with pytest.raises(ConfigError, match="its name says that it is compressed, and it is not"):
        load_rows(Source(path=str(tmp_path / "plain.jsonl.gz")))
    (tmp_path / "packed.jsonl").write_bytes(gzip.compress(LINES))
    assert len(rows_of(tmp_path / "packed.jsonl")) == 300
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(b"PAR1"))
    with pytest.raises(ConfigError, match="Parquet is compressed by itself"):
        load_rows(Source(path=str(tmp_path / "a.parquet.gz")))
    with pytest.raises(ConfigError, match=r"gone.jsonl.zst does not exist"):
        load_rows(Source(path="gone.jsonl.zst"))


def test_a_row_that_is_bad_is_named_by_the_archive_and_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(LINES + b"{no json\n"))
    with pytest.raises(ConfigError, match=r"a.jsonl.gz, line 301: not JSON"):
        load_rows(Source(path=str(path)))


def test_an_empty_archive_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstd(b""))
    with pytest.raises(ConfigError, match=r"a.jsonl.zst is empty"):
        load_rows(Source(path=str(path)))


@pytest.mark.slow
def test_unpacking_takes_little_memory(tmp_path: Path) -> None:
    """A quarter of a gigabyte of one letter is a few kilobytes packed."""
    path = tmp_path / "a.jsonl.zst"
    with pa.OSFile(str(path), "wb") as file, pa.CompressedOutputStream(file, "zstd") as out:
        for _ in range(256):
            out.write(b"x" * (1 << 20))
    code = (
        "import resource, sys, pyarrow\n"
        "from renio_pipeline.data.files.compressed import opened\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"file = opened({str(path)!r})\n"
        "assert file.seek(0, 2) == 256 << 20\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 64 << 10, "kilobytes"


def test_a_record_of_a_run_has_the_size_of_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(LINES))
    assert Origin.of(str(path), Prints.none()).bytes == path.stat().st_size < len(LINES)


def test_no_temporary_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder = tmp_path / "a.jsonl.gz", tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    path.write_bytes(gzip.compress(LINES))
    with opened(path) as file:
        assert file.read() == LINES
    assert list(folder.iterdir()) == []
