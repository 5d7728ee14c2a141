"""The Ray clusters in which ``renio status`` and its like look for runs.

Does not import Ray: an environment variable that Ray reads when it is imported is settled here.
"""

from __future__ import annotations

import os

from actors.cluster.address import local_clusters, use_token_of_this_machine
from renio_pipeline.config import ConfigError


def addresses(given: str | None) -> list[str]:
    """Where to look for runs: ``given``, or RAY_ADDRESS, or every cluster of this user on this machine, the newest first.

    Raises:
        ConfigError: an address of a Ray that would have to be started; or none is given, and no cluster is here.
    """
    given = given or os.environ.get("RAY_ADDRESS")
    if given == "local":
        raise ConfigError("--address: 'local' means a new Ray, which has no runs; give HOST:PORT of one that is up, or nothing")
    if given and given != "auto":
        return [given]
    found = local_clusters()
    if not found:
        raise ConfigError("no run is live here: this machine has no Ray; for another machine's, give --address or RAY_ADDRESS")
    use_token_of_this_machine()
    return found
