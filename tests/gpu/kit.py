"""Collect, on a machine with a package registry, what a GPU machine without a network lacks, in parts that can be carried.

    python -m tests.gpu.kit --out FOLDER [--part-bytes 60000000] [--python 3.12] [--vllm 0.32.0] [--add NAME==VERSION ...]

FOLDER then holds `manifest.json` and `part-00`, `part-01`, … Copy all of them to one folder of the GPU machine, and name it
there: `python -m tests.gpu --kit THAT_FOLDER`. The GPU machine must have torch and transformers of its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from tests.gpu.parts import write_kit
from tests.gpu.wheels import FROM_SOURCE, LIBRARIES, PACKAGES, ROOT, Target, fetch, make, of_ray, of_vllm, pinned

MB = 10**6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the kit is written; one that is there is replaced")
    parser.add_argument("--part-bytes", type=int, default=60 * MB, help="largest size of a part")
    parser.add_argument("--python", default="3.12", help="of the GPU machine")
    parser.add_argument("--machine", default="x86_64", help="architecture of the GPU machine")
    parser.add_argument("--vllm", default="0.32.0", help="version of vLLM")
    parser.add_argument("--libraries", nargs="*", default=list(LIBRARIES), help="vLLM's compiled modules to include")
    parser.add_argument("--add", nargs="*", default=[], metavar="NAME==VERSION", help="further packages that are missing there")
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="NAME", help="packages of the list that are there")
    parser.add_argument("--wheels", type=Path, default=ROOT / "build/gpu-kit-wheels", help="where downloads are kept")
    args = parser.parse_args()
    if args.part_bytes < MB:
        parser.error(f"--part-bytes: {args.part_bytes} would make hundreds of parts; give at least {MB}")
    for given in args.add:
        if "==" not in given:
            parser.error(f"--add: {given!r} has no version; write NAME==VERSION")
    target = Target(python=args.python, machine=args.machine)
    wheels = collect(target, args.vllm, tuple(args.libraries), args.add, set(args.leave_out), args.wheels)
    manifest = write_kit(args.out, wheels, python=args.python, part_bytes=args.part_bytes)
    for package in sorted(manifest["packages"], key=lambda p: -p["bytes"]):
        sizes = f"{package['bytes'] / MB:8.2f} MB of a wheel of {package['wheel_bytes'] / MB:8.2f}"
        print(f"{package['name'] + ' ' + package['version']:<40} {sizes}")
    for part in manifest["parts"]:
        print(f"{args.out / part['file']}  {part['bytes'] / MB:.2f} MB")
    return 0


def collect(
    target: Target, vllm: str, libraries: tuple[str, ...], add: list[str], leave_out: set[str], folder: Path
) -> list[tuple[Path, Callable[[str], bool] | None]]:
    """The wheels of a kit, vLLM's first, each with what says which of its files are wanted (None: all)."""
    (engine,) = fetch([f"vllm=={vllm}"], target, folder)
    versions = pinned(engine)
    names = [name for name in PACKAGES if name not in leave_out]
    others = fetch([*(f"{name}=={versions[name]}" for name in names), *add], target, folder)
    made = [make(f"{name}=={versions[name]}", folder) for name in FROM_SOURCE if name not in leave_out]
    wanted: dict[str, Callable[[str], bool]] = {"ray": of_ray}
    return [(engine, of_vllm(libraries)), *((wheel, wanted.get(wheel.name.split("-")[0])) for wheel in [*made, *others])]


if __name__ == "__main__":
    sys.exit(main())
