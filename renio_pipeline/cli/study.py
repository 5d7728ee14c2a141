"""``renio study``."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from renio_pipeline.cli.common import TAKEOVER, path
from renio_pipeline.config import ConfigError
from renio_pipeline.visible import visible


def register(commands: Any) -> None:
    """Add the command to ``commands``, what ``ArgumentParser.add_subparsers`` returned."""
    text = "the paper's controlled experiments on small models, in this process; what is done already is not done again"
    study = commands.add_parser("study", help=text, description=text[0].upper() + text[1:] + ".")
    study.add_argument(
        "--out", type=path, default=Path("docs/study"), help="folder of the raw results, the plots and the page (index.md)"
    )
    study.add_argument("--config", type=path, nargs="+", metavar="FILE", help="experiments; default: those of configs/study")
    study.add_argument("--only", metavar="a,c", help="these experiments alone")
    study.add_argument("--seeds", type=int, metavar="N", help="this many, instead of each experiment's own number")
    study.add_argument("--jobs", type=int, default=1, metavar="N", help="processes, each on one core")
    study.add_argument("--report-only", action="store_true", help="compute nothing: write the page from the results there are")
    study.add_argument("--takeover", action="store_true", help=TAKEOVER)
    study.set_defaults(run=_study)


def _study(args: argparse.Namespace) -> int:
    for name in ("jobs", "seeds"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ConfigError(f"--{name}: {getattr(args, name)} given, but at least 1 is needed")
    from renio_pipeline.study.plan import in_order

    paths = args.config or sorted(Path("configs/study").glob("?.yaml"))
    if not paths:
        raise ConfigError("--config: there is no configs/study here; name the experiments' files")
    chosen = in_order(paths, args.only.split(",") if args.only else ())
    from renio_pipeline.run_dir import lease
    from renio_pipeline.study.document import write_study

    with ExitStack() as stack:
        if not args.report_only:
            from renio_pipeline.study.run import run_study

            note = partial(print, flush=True)
            held = stack.enter_context(lease.held(args.out, key="--out", takeover=args.takeover, note=note))
            run_study(chosen, args.out, seeds=args.seeds, jobs=args.jobs, note=note, fence=held.fence)
            held.fence.check()
        print(visible(str(write_study(in_order(paths), args.out, seeds=args.seeds))))
    return 0
