"""What a run needs to know of a model before any engine loads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from renio_pipeline.config import ConfigError

EMBEDDED = "embedded:"


def resolve(name: str) -> str:
    """A model's folder or hub name. ``embedded:student`` is the folder inside the installed package, on every node."""
    if not name.startswith(EMBEDDED):
        return str(Path(name).expanduser()) if name.startswith("~") else name
    return str(Path(__file__).parent / "demo" / name.removeprefix(EMBEDDED))


def is_local(name: str) -> bool:
    """Whether ``name`` means a folder: a path that starts like one, or one that exists."""
    return name.startswith((EMBEDDED, "/", ".", "~")) or Path(name).exists() or name.count("/") != 1


@dataclass(frozen=True)
class ModelInfo:
    name: str
    architecture: str
    vocab_rows: int  # rows of the output head
    context: int  # tokens
    hidden_size: int  # H
    tokens: dict[int, str]  # id -> token, added ones included


def inspect(name: str, key: str) -> ModelInfo:
    """Read a model's configuration and tokenizer; no weights.

    Raises:
        ConfigError: the folder or the hub's model does not exist, or is not a causal language model's.
    """
    path = Path(resolve(name))
    if is_local(name):
        if not path.is_dir():
            raise ConfigError(f"{key}: model folder {str(path)!r} {'is a file' if path.exists() else 'does not exist'}")
        if not (path / "config.json").is_file():
            raise ConfigError(f"{key}: {str(path)!r} has no config.json: expected a Hugging Face model folder")
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(resolve(name)).get_text_config()
        tokenizer = AutoTokenizer.from_pretrained(resolve(name))
    except Exception as error:  # a damaged file gives any of them, KeyError too
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        hub = "" if path.is_dir() else " (there is no such folder, so it was taken for a hub name)"
        raise ConfigError(f"{key}: {name!r} cannot be read as a model{hub}: {reason}") from None
    if config.is_encoder_decoder or not hasattr(config, "vocab_size"):
        raise ConfigError(f"{key}: {name!r} ({config.model_type}) is not a causal language model")
    tokens = {index: token for token, index in tokenizer.get_vocab().items()}
    if len(tokens) < 2:  # transformers makes up an empty tokenizer where a folder has none
        raise ConfigError(f"{key}: {name!r} has no tokenizer")
    return ModelInfo(
        name=name,
        architecture=(config.architectures or [config.model_type])[0],
        vocab_rows=config.vocab_size,
        context=getattr(config, "max_position_embeddings", 2**31),
        hidden_size=config.hidden_size,
        tokens=tokens,
    )


def check_tokenizers(student: ModelInfo, teacher: ModelInfo) -> None:
    """Compare two tokenizers id by id; the numbers of output rows need not agree (Qwen pads them by size).

    Raises:
        ConfigError: an id means another token, or a token only to one of them; names the first.
    """
    differing = [
        i for i in sorted(student.tokens.keys() | teacher.tokens.keys()) if student.tokens.get(i) != teacher.tokens.get(i)
    ]
    if differing:
        i = differing[0]
        raise ConfigError(
            f"teacher.model: the tokenizers of student {student.name!r} and teacher {teacher.name!r} disagree at "
            f"{len(differing)} ids, first at id {i}: student {student.tokens.get(i)!r}, teacher {teacher.tokens.get(i)!r}; "
            "the teacher scores the student's token ids, so both must have one tokenizer"
        )
