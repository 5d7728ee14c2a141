"""Values that no one outside may see: a run's configuration goes to trackers and, with its command, into model cards."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"
_NAME = re.compile(r"token$|secret|passw|credential|(?:^|_)key$|auth", re.IGNORECASE)  # of environment variables
_VALUE = re.compile(r"\b(?:hf_|sk-|ghp_|github_pat_|xox[abp]-|AKIA)[A-Za-z0-9_-]{12,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")


def hidden(value: Any, name: str = "") -> Any:
    """``value`` and all within it, without passwords: tokens of known forms, those of URLs, and by ``name`` in ``env``."""
    if isinstance(value, dict):
        return {key: hidden(one, f"{name}.{key}" if name else str(key)) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [hidden(one, name) for one in value]
    if not isinstance(value, str):
        return value
    if ".env." in name and _NAME.search(name.rpartition(".env.")[2]):
        return HIDDEN
    key, equals, _ = value.partition("=")
    if equals and ".env." in key and _NAME.search(key.rpartition(".env.")[2]):  # an override on the command line
        return f"{key}={HIDDEN}"
    return _VALUE.sub(HIDDEN, value)
