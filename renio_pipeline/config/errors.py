"""The one error that is the user's to mend."""

from __future__ import annotations


class ConfigError(ValueError):
    """The user's configuration, data or cluster cannot give this run: exit code 2, before any engine starts."""
