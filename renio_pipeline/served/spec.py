"""What is known of a served teacher before it is asked anything."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from renio_pipeline.config.errors import ConfigError
from renio_pipeline.types import EndTokens


class Secret:
    """A key. It travels to other processes, and appears in no text."""

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._value)

    @property
    def header(self) -> dict[str, str]:
        """The HTTP header that carries it."""
        return {"Authorization": f"Bearer {self._value}"} if self._value else {}

    def scrubbed(self, text: str) -> str:
        """``text`` without the key, should a server have repeated it."""
        return text.replace(self._value, "***") if self._value else text


def read_key(variable: str | None) -> Secret:
    """The key in an environment variable of this process; an empty one where there is none."""
    return Secret(os.environ.get(variable, "").strip() if variable else "")


@dataclass(frozen=True, kw_only=True)
class ServedSpec:
    """A served teacher."""

    key: str  # its section of the configuration, for messages
    urls: tuple[str, ...]  # as ``served_teachers.base_url`` gives them
    api: str
    model: str  # as the servers call it
    key_env: str | None = None
    secret: Secret = field(default_factory=lambda: Secret(""))  # of the driver's environment
    ca_file: str | None = None
    concurrency: int = 16  # requests at one server
    timeout: float = 600.0  # seconds
    temperature: float = 1.0  # the distillation temperature
    vocab_size: int  # V
    context: int  # tokens of prompt and response together
    top_k: int = 0  # K of the payload; 0: only the sampled tokens are wanted
    tolerance: float = 0.15  # nats, by which equal models may differ on average
    end_tokens: EndTokens = ()
    texts: tuple[tuple[int, ...], ...] = ()  # token ids of a few prompts, on which servers are examined
    probes: tuple[tuple[str, tuple[int, ...]], ...] = ()  # texts, with the student's ids of each

    def bearer(self) -> Secret:
        """The key: of this process's environment, or of the driver's.

        Raises:
            ConfigError: there is none, and ``key_env`` names one.
        """
        found = read_key(self.key_env) or self.secret
        if self.key_env and not found:
            raise ConfigError(
                f"{self.key}.key_env: the environment variable {self.key_env} is not set, neither where the run was started "
                "nor on the node of the teacher's pool; export it, or leave key_env out"
            )
        return found
