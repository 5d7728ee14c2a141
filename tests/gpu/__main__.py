"""Every check on this machine's GPU, in one table: `python -m tests.gpu [--kit FOLDER] [--out FOLDER]`.

A check that fails does not stop the others. Exits with 1 if one failed, with 0 otherwise: one that was not run is neither.
`--small --device cpu` runs the same code with small shapes on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from tests.gpu import table
from tests.gpu.checks import CHECKS
from tests.gpu.runner import ROOT, Row, environment, run
from tests.gpu.unpack import KitError, read_manifest, unpack


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="small shapes, for a CPU")
    parser.add_argument("--kit", type=Path, help="folder with a kit of packages (see tests.gpu.kit)")
    parser.add_argument(
        "--unpacked", type=Path, help="where the kit is unpacked (build/gpu-kit); alone: a kit that was unpacked there before"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs/gpu-check", help="folder for the table, JSON and logs")
    parser.add_argument(
        "--only", nargs="+", metavar="CHECK", default=[], help="names, or beginnings of names, such as a or b-lora"
    )
    parser.add_argument("--until", type=float, default=float("inf"), help="seconds after which no further check begins")
    parser.add_argument("--list", action="store_true", help="print the checks' names, and run none")
    args = parser.parse_args(arguments)
    chosen = [check for check in CHECKS if not args.only or check.name.startswith(tuple(args.only))]
    if not chosen:
        parser.error(f"--only: no check's name begins with {' or '.join(args.only)}; --list shows them")
    if args.list:
        print("\n".join(check.name for check in chosen))
        return 0
    try:
        kit = _packages(args.kit, args.unpacked)
    except KitError as error:
        print(f"{'--kit' if args.kit else '--unpacked'}: {error}", file=sys.stderr)
        return 1
    started, rows, env = time.monotonic(), list[Row](), environment(kit)
    machine = _machine(args.device, env)
    for check in chosen:
        if time.monotonic() - started > args.until:
            rows.append(Row(check=check.name, outcome="not run", why=f"--until {args.until:g} seconds were over"))
        else:
            rows.append(run(check, device=args.device, small=args.small, logs=args.out / "logs", environment=env))
        row = rows[-1]
        print(f"{row.check}: {row.outcome}{': ' if row.why else ''}{row.why} ({row.seconds:.0f} s)", flush=True)
        table.write(args.out, rows, machine)  # after each, so that a run that is cut short leaves what it has
    print(table.markdown(rows, machine))
    return 1 if any(row.outcome == "failed" for row in rows) else 0


def _packages(kit: Path | None, unpacked: Path | None) -> Path | None:
    """The folder of a kit's packages, if one is named. Raises KitError."""
    if kit is None and unpacked is None:
        return None
    folder = unpacked or ROOT / "build/gpu-kit"
    manifest = read_manifest(folder) if kit is None else unpack(kit, folder)
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if manifest["python"] != here:
        raise KitError(f"its packages are for Python {manifest['python']}, and this is {here}: make a kit with --python {here}")
    return folder


def _machine(device: str, env: dict[str, str]) -> dict[str, str]:
    """By a process that sees the kit's packages."""
    command = [sys.executable, "-m", "tests.gpu.versions", device]
    found = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    if found.returncode:
        return {"machine": f"unknown: {found.stderr.strip()[-300:]}"}
    versions: dict[str, str] = json.loads(found.stdout.splitlines()[-1])
    return versions


if __name__ == "__main__":
    sys.exit(main())
