"""What commands that read a run's configuration have in common."""

from __future__ import annotations

import argparse


def with_config(*, required: bool = True) -> argparse.ArgumentParser:
    """The arguments, as a parent of a command's parser."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", required=required, action="append",
        help="a YAML file, such as configs/demo.yaml; of several, later ones count",
    )  # fmt: skip
    common.add_argument("--address", help="a Ray cluster; default: RAY_ADDRESS, or a Ray started for this run")
    common.add_argument("overrides", nargs="*", metavar="key=value", help="override a key, such as steps=10")
    return common
