"""``renio push``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from renio_pipeline.cli.common import path
from renio_pipeline.config import ConfigError
from renio_pipeline.visible import visible


def register(commands: Any) -> None:
    """Add the command to ``commands``, what ``ArgumentParser.add_subparsers`` returned."""
    text = "a run's model or LoRA adapter to the Hugging Face hub, with a model card; the token is HF_TOKEN's"
    push = commands.add_parser("push", help=text, description=text[0].upper() + text[1:] + ".")
    push.add_argument("folder", type=path, metavar="RUN", help="a run's directory")
    push.add_argument("repo", metavar="REPO", help="user/name; it is made where it is missing")
    push.add_argument("--checkpoint", metavar="STEP", help="another step's than the last")
    push.add_argument("--adapter", action="store_true", help="the LoRA adapter, where the checkpoint has the merged model too")
    push.add_argument("--private", action="store_true", help="make the repository private")
    push.add_argument("--revision", metavar="BRANCH", help="default: the main branch; it is made where it is missing")
    push.add_argument("--license", metavar="ID", help="the model's licence, as the hub names it, such as apache-2.0")
    push.add_argument("--base-model", metavar="USER/NAME", help="the student's name on the hub, if it was a folder")
    push.add_argument("--card", type=path, metavar="FILE", help="a card that you have edited, in place of the one that is made")
    push.add_argument("--dry-run", action="store_true", help="only write the card, to RUN/model-card.md; needs no network")
    push.set_defaults(run=_push)


def _push(args: argparse.Namespace) -> int:
    from renio_pipeline.publish.card import model_card
    from renio_pipeline.publish.source import find
    from renio_pipeline.publish.upload import check_repo, check_token, push

    for key, name in (("REPO", args.repo), ("--base-model", args.base_model)):
        if name is not None:
            check_repo(name, key)
    published = find(args.folder, args.checkpoint, adapter=args.adapter, base=args.base_model)
    card = _read(args.card) if args.card else model_card(published, args.repo, license=args.license)
    size = sum(file.stat().st_size for file in published.files.values())
    what = f"the {published.kind} of step {published.step}: {len(published.files)} files, {size / 1e6:,.1f} MB"
    if not args.dry_run:
        check_token()
    if published.base is None:
        print("the card names no base model: the student was a folder; --base-model USER/NAME does")
    if not (args.license or args.card):
        print("the card names no licence; --license ID does, and must agree with the base model's")
    if args.dry_run:
        place: Path = args.folder / "model-card.md"
        place.write_text(card, encoding="utf-8")
        print(visible(f"nothing was pushed. To {args.repo} would go {what}, with the card {place}"))
        return 0
    print(visible(f"pushing {what}, to {args.repo}"), flush=True)
    print(visible(f"pushed: {push(published, card, args.repo, private=args.private, revision=args.revision)}"))
    return 0


def _read(file: Path) -> str:
    from huggingface_hub import ModelCard

    try:
        text = file.read_text(encoding="utf-8")
        ModelCard(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--card: {file} cannot be used: {error}") from None
    return text
