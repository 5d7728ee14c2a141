"""What ``renio status`` shows, as a picture.

renio status --json | python deploy/status_picture.py > status.svg
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from renio_pipeline.control.status_view import status_view


def picture(status: Mapping[str, Any]) -> str:
    """``status``: an answer to ``renio status --json``. Returns SVG."""
    console = Console(record=True, width=100, file=io.StringIO(), highlight=False, force_terminal=True)
    console.print("$ renio status", style="dim")
    console.print(status_view(status))
    svg = console.export_svg(title="", unique_id="status")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # a picture in a repository fetches nothing


if __name__ == "__main__":
    print(picture(json.load(sys.stdin)))
