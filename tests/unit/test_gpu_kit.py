"""The kit for a GPU machine without a network: made-up wheels go into parts and come out of them as they were."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import unpack as unpacking
from tests.gpu.parts import write_kit
from tests.gpu.unpack import MANIFEST, KitError, unpack
from tests.gpu.wheels import LIBRARIES, of_ray, of_vllm, pinned
from tests.unit.made_up_wheels import wheel

PART = 20_000  # bytes
NOISE = os.urandom(50_000)  # which xz cannot shrink: an archive larger than two parts


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    engine = wheel(
        tmp_path,
        "vllm",
        {
            "vllm/__init__.py": b"x = 1\n",
            "vllm/_C_stable_libtorch.abi3.so": b"C",
            "vllm/_moe_C_stable_libtorch.abi3.so": b"M",
            "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so": b"2",
            "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so": NOISE,
            "vllm/third_party/a.hpp": b"H",
            "vllm/configs/b.json": b"{}",
            "vllm-1.5.dist-info/RECORD": b"R",
        },
    )
    files = {
        "some/run": b"#!",
        "some-1.5.data/purelib/other.py": b"y = 2\n",
        "some-1.5.data/scripts/some": b"S",
        "empty.py": b"",
    }
    rest = wheel(tmp_path, "some", files, executable="some/run")
    write_kit(
        tmp_path / "kit",
        [(engine, of_vllm(LIBRARIES)), (rest, None)],
        python="3.12",
        part_bytes=PART,
    )
    return tmp_path / "kit"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST}


def test_what_was_wanted_of_the_wheels_comes_out_of_small_parts(kit: Path, tmp_path: Path) -> None:
    manifest = unpack(kit, tmp_path / "there")
    sizes = [(kit / part["file"]).stat().st_size for part in manifest["parts"]]
    assert len(sizes) >= 3
    assert set(sizes[:-1]) == {PART}
    assert 0 < sizes[-1] <= PART
    assert files_of(tmp_path / "there") == {
        "vllm/__init__.py": b"x = 1\n", "vllm/_C_stable_libtorch.abi3.so": b"C", "vllm/configs/b.json": b"{}",
        "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so": NOISE, "vllm-1.5.dist-info/RECORD": b"R",
        "some/run": b"#!", "other.py": b"y = 2\n", "empty.py": b"",
    }  # fmt: skip
    assert os.access(tmp_path / "there/some/run", os.X_OK)
    assert not os.access(tmp_path / "there/other.py", os.X_OK)
    assert [(p["name"], p["version"]) for p in manifest["packages"]] == [("vllm", "1.5"), ("some", "1.5")]


def test_unpacking_needs_the_standard_library_alone_and_says_what_is_wrong(kit: Path, tmp_path: Path) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-S", unpacking.__file__, str(kit), str(tmp_path / "there")]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 packages for Python 3.12" in done.stdout
    (tmp_path / "there" / MANIFEST).unlink()
    (kit / "part-01").unlink()
    failed = run()
    assert failed.returncode == 1
    assert "lacks part-01 of" in failed.stderr
    assert "Traceback" not in failed.stderr


def damage_a_byte(kit: Path) -> None:
    data = bytearray((kit / "part-00").read_bytes())
    data[PART // 2] ^= 1
    (kit / "part-00").write_bytes(data)


def cut_short(kit: Path) -> None:
    (kit / "part-01").write_bytes((kit / "part-01").read_bytes()[:-1])


def forget(kit: Path) -> None:
    (kit / "part-01").unlink()


def change(kit: Path, edit: Any) -> None:
    manifest = json.loads((kit / MANIFEST).read_text())
    edit(manifest)
    (kit / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (damage_a_byte, "part-00 does not have the checksum"),
        (cut_short, "part-01 has 19999 bytes instead of 20000"),
        (forget, "lacks part-01 of"),
        (lambda kit: (kit / MANIFEST).unlink(), "is not a kit"),
        (lambda kit: (kit / MANIFEST).write_text("{"), "is damaged"),
        (lambda kit: change(kit, lambda m: m.update(format=2)), "has format 2"),
        (lambda kit: change(kit, lambda m: m["packages"][1].update(sha256="0")), "package some does not have the checksum"),
    ],
)
def test_a_kit_with_a_fault_is_refused_and_what_was_unpacked_stays(kit: Path, tmp_path: Path, fault: Any, text: str) -> None:
    unpack(kit, tmp_path / "there")
    before = files_of(tmp_path / "there")
    change(kit, lambda m: m.update(python="3.13"))  # another kit than the one that is there
    fault(kit)
    with pytest.raises(KitError, match=text):
        unpack(kit, tmp_path / "there")
    assert files_of(tmp_path / "there") == before


def test_the_same_kit_is_not_unpacked_twice_and_another_one_takes_its_place(kit: Path, tmp_path: Path) -> None:
    unpack(kit, tmp_path / "there")
    (tmp_path / "there/other.py").write_text("kept")
    unpack(kit, tmp_path / "there")
    assert (tmp_path / "there/other.py").read_text() == "kept"
    change(kit, lambda m: m.update(python="3.13"))
    unpack(kit, tmp_path / "there")
    assert (tmp_path / "there/other.py").read_text() == "y = 2\n"


def test_versions_are_the_lock_lists_unless_vllm_fixes_others(tmp_path: Path) -> None:
    metadata = (
        "Requires-Dist: xgrammar==0.0.1; platform_machine == \"x86_64\" or platform_machine == \"arm64\"\n"
        "Requires-Dist: protobuf==7.0; platform_machine == \"s390x\"\n"
        "Requires-Dist: Apache_TVM-ffi==0.0.2\nRequires-Dist: pydantic>=2.12.0\n"
    )  # fmt: skip
    versions = pinned(wheel(tmp_path, "vllm", {"vllm-1.5.dist-info/METADATA": metadata.encode()}))
    assert (versions["xgrammar"], versions["apache-tvm-ffi"]) == ("0.0.1", "0.0.2")
    assert versions["protobuf"] != "7.0"
    assert versions["pydantic"].startswith("2.")


def test_ray_goes_without_its_java_and_its_page() -> None:
    paths = ("ray/jars/ray_dist.jar", "ray/dashboard/client/a.js", "ray/dashboard/agent.py", "ray/_raylet.so")
    assert [of_ray(path) for path in paths] == [False, False, True, True]
