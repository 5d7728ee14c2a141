"""Whether the Hugging Face hub can be reached, found out in seconds: its client would repeat each request for half a minute."""

from __future__ import annotations

import time

TRIES, PAUSE_SECONDS = 2, 1.0


class HubUnreachableError(RuntimeError):
    """The hub does not answer. The text says what to look at."""


def unreachable(error: Exception) -> bool:
    """Whether an error of the hub's client means that no answer came: a refused connection, a time-out, no such host."""
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "requests") or isinstance(
        error, ConnectionError | TimeoutError
    )


def reach(name: str, file: str) -> None:
    """Ask for a file's metadata, unless the file is cached or the network is switched off. Any answer will do.

    Raises:
        HubUnreachableError: no answer came, each of the tries within HF_HUB_ETAG_TIMEOUT (10 s) or refused at once.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import OfflineModeIsEnabled

    if constants.HF_HUB_OFFLINE or isinstance(try_to_load_from_cache(name, file), str):
        return
    for attempt in range(TRIES):
        try:
            get_hf_file_metadata(hf_hub_url(name, file), timeout=constants.HF_HUB_ETAG_TIMEOUT)
        except OfflineModeIsEnabled:
            return
        except Exception as error:
            if not unreachable(error):
                return  # an answer, of which whoever reads the file says more
            if attempt + 1 == TRIES:
                raise HubUnreachableError(
                    f"{constants.ENDPOINT} does not answer ({str(error) or type(error).__name__}); look at the network and "
                    "HF_ENDPOINT, or give a folder"
                ) from None
            time.sleep(PAUSE_SECONDS)
        else:
            return
