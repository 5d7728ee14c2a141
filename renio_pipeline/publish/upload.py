"""The upload: one commit, in which either everything arrives or nothing, and a look at what the hub has afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.models.hub import unreachable
from renio_pipeline.publish.source import SETTINGS, Published
from renio_pipeline.run_dir.secret_values import hidden


def check_repo(repo: str, key: str = "REPO") -> None:
    """Raises ConfigError, which begins with ``key``, if ``repo`` is no name that the hub may have."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repo)
        good = repo.count("/") == 1
    except HFValidationError:
        good = False
    if not good:
        raise ConfigError(f"{key}: {repo!r} is not user/name, of letters, digits, '-', '_' and '.', as in my-name/my-model")


def check_token() -> str:
    """The token of the environment: of HF_TOKEN, or of the login on this machine. Raises ConfigError if there is none."""
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise ConfigError("HF_TOKEN: there is no token; make one with write access (hf.co/settings/tokens), and set HF_TOKEN")
    return token


def push(published: Published, card: str, repo: str, *, private: bool = False, revision: str | None = None) -> str:
    """Upload the files with ``card`` as README.md. Returns the address of the commit.

    Args:
        private: make the repository private; refused where there is a public one.
        revision: the branch; None: the main one. It is made where it is missing.

    Raises:
        ConfigError: there is no token, or the hub refuses, cannot be reached, or lacks a file afterwards.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=check_token(), library_name="renio-pipeline")
    contents: dict[str, Any] = {"README.md": card.encode(), **{name: str(path) for name, path in published.files.items()}}
    if (settings := published.adapter_settings()) is not None:
        contents[SETTINGS] = settings
    with _told(api.endpoint, repo):
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise ConfigError(
                f"--private: {repo} is there already, and public; change that in its settings, or take another name"
            )
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        adding = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in contents.items()]
        message = f"Step {published.step} of {published.config.name}"
        commit = api.create_commit(repo, adding, commit_message=message, revision=revision)
        sizes = {f.path: f.size for f in api.list_repo_tree(repo, recursive=True, revision=commit.oid) if hasattr(f, "size")}
    wanted = {name: len(c) if isinstance(c, bytes) else published.files[name].stat().st_size for name, c in contents.items()}
    if lacking := sorted(name for name, size in wanted.items() if sizes.get(name) != size):
        raise ConfigError(f"{repo}: after the upload the hub lacks {', '.join(lacking[:3])}, or has another size; push again")
    return str(commit.commit_url)


@contextmanager
def _told(endpoint: str, repo: str) -> Iterator[None]:
    """What the hub refuses, in one line that says what to do. Until the commit is made, the repository is as it was."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled:
        raise ConfigError(f"{repo}: nothing was pushed: HF_HUB_OFFLINE is set; unset it, or take --dry-run") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        advice = {
            401: "the token is not valid; make another one (hf.co/settings/tokens), and set HF_TOKEN",
            403: f"the token may not write to {repo}; it needs write access, to that user or organisation",
            404: "there is no such repository, or the token may not see it",
            409: "somebody else changed the repository in the meantime; push again",
            429: "too many requests; push again in a while",
        }.get(status or 0, "push again later")
        detail = str(error.server_message or "").strip().splitlines()
        said = f" ({hidden(detail[0])})" if detail else ""
        raise ConfigError(f"{repo}: nothing was pushed: {endpoint} answers {status}{said}: {advice}") from None
    except ValueError as error:  # of the card's metadata, in the hub's words
        raise ConfigError(f"{repo}: nothing was pushed: {hidden(' '.join(str(error).split()))}") from None
    except OSError as error:
        raise ConfigError(f"{repo}: nothing was pushed: {type(error).__name__}: {hidden(str(error))}") from None
    except Exception as error:
        if not unreachable(error):
            raise
        raise ConfigError(
            f"{repo}: nothing was pushed: {endpoint} cannot be reached ({hidden(str(error)) or type(error).__name__}); look at "
            "the network and HF_ENDPOINT, and push again"
        ) from None
