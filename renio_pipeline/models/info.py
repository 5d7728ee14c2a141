"""What a run must know about a model before any engine loads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.config.paths import expanded
from renio_pipeline.models.files import end_ids, sizes_of, tokenizer_of
from renio_pipeline.models.folder import check_folder, check_weights
from renio_pipeline.models.kind import NoCausalModelError

EMBEDDED = "embedded:"
# Texts on which tokenizers with equal vocabularies may still differ: merges, digits, white space, case, accents, scripts.
PROBES = (
    "The quick brown fox doesn't jump over 12345678 lazy dogs.", "f(x) = \\frac{3x^2 - 1}{2\\pi}, x \\in [0, 1)",
    "def f(n):\n    return n if n < 2 else f(n - 1)\n\n\n\t# done", "  leading,   inner and trailing spaces  ",
    "UPPER Title lower iPhone", "café cafe\u0301 naïve ﬁ Ⅳ ①", "日本語 русский عربى हिन्दी 👩‍🚀", "37+48-9=76;#76",
)  # fmt: skip


def resolve(name: str) -> str:
    """The folder or hub name of a model. ``embedded:student`` is a folder of the installed package, on every node."""
    if not name.startswith(EMBEDDED):
        return expanded(name)
    return str(Path(__file__).parents[1] / "demo" / name.removeprefix(EMBEDDED))


def is_local(name: str) -> bool:
    """Whether ``name`` is a folder: it starts like a path, or exists, or is not of the form OWNER/NAME."""
    return name.startswith((EMBEDDED, "/", ".", "~")) or Path(name).exists() or name.count("/") != 1


def is_cached(name: str) -> bool:
    """Whether a model's configuration and tokenizer can be read without a network."""
    if is_local(name):
        return True  # if the folder is missing, ``inspect`` reports it
    from transformers.utils import cached_file

    files = ("config.json", "tokenizer_config.json")
    return all(
        cached_file(
            name,
            f,
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        for f in files
    )


@dataclass(frozen=True)
class ModelInfo:
    """A model's sizes and vocabulary."""

    name: str
    architecture: str
    vocab_rows: int  # rows of the output head
    context: int  # tokens
    hidden_size: int  # H
    unknown_scale: str | None  # a configuration key that scales the logits in a way this package does not support
    quantised: str | None  # how the weights are quantised, such as "gptq"
    tokens: dict[int, str]  # id -> token, including added tokens
    probes: tuple[tuple[int, ...], ...]  # the ids of each of PROBES
    ends: frozenset[int] = frozenset()  # the tokens at which its responses end
    chat_template: str | None = None  # its only one, or the one that is its default


def inspect(name: str, key: str, *, weights: bool = True) -> ModelInfo:
    """Read a model's configuration and tokenizer, but no weights.

    Args:
        name: a folder, ``embedded:NAME`` or a hub name.
        key: the configuration key of the model, for error messages.
        weights: whether a folder must have the model's weights, whole.

    Raises:
        ConfigError: the folder or hub model does not exist, is not whole, or is not a causal language model.
    """
    path = Path(resolve(name))
    if is_local(name):
        check_folder(path, key)
    with _legible(name, key):
        sizes = sizes_of(resolve(name))
    tokenizer = read_tokenizer(name, key)
    tokens = {index: token for token, index in tokenizer.get_vocab().items()}
    if weights and is_local(name):
        check_weights(path, key)
    return ModelInfo(
        name=name,
        architecture=sizes.architecture,
        vocab_rows=sizes.vocab_rows,
        context=sizes.context,
        hidden_size=sizes.hidden_size,
        unknown_scale=sizes.unknown_scale,
        quantised=sizes.quantised,
        tokens=tokens,
        probes=tuple(tuple(ids) for ids in tokenizer(list(PROBES), add_special_tokens=False)["input_ids"]),
        ends=frozenset(end_ids(resolve(name), tokenizer)),
        chat_template=_template(tokenizer),
    )


def _template(tokenizer: Any) -> str | None:
    found = tokenizer.chat_template
    return (found.get("default") if isinstance(found, dict) else found) or None


def read_tokenizer(name: str, key: str) -> Any:
    """The tokenizer of a model. Of the model itself, nothing is read.

    Args:
        name: a folder, ``embedded:NAME`` or a hub name.
        key: the configuration key of the model, for error messages.

    Raises:
        ConfigError: the folder or hub model does not exist, cannot be reached, or has no tokenizer that can be read.
    """
    if is_local(name):
        check_folder(Path(resolve(name)), key)
    with _legible(name, key):
        tokenizer = tokenizer_of(resolve(name))
    if len(tokenizer.get_vocab()) < 2:  # transformers creates an empty tokenizer if a folder has none
        raise ConfigError(f"{key}: {name!r} has no tokenizer")
    return tokenizer


@contextmanager
def _legible(name: str, key: str) -> Iterator[None]:
    """Whatever reading the model's files raises becomes a ConfigError of one line."""
    try:
        yield
    except NoCausalModelError as error:
        raise ConfigError(f"{key}: {name!r} {error}") from None
    except Exception as error:  # a damaged file may raise any type, even KeyError
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        hub = "" if Path(resolve(name)).is_dir() else " (there is no such folder, so it was treated as a hub name)"
        raise ConfigError(f"{key}: {name!r} cannot be read as a model{hub}: {reason}") from None


def check_lora_targets(name: str, targets: Sequence[str]) -> None:
    """Raises ConfigError for a target of trainer.lora that matches no linear module of the model. Reads no weights."""
    import torch

    skeleton = _skeleton(name)
    head = skeleton.get_output_embeddings()
    linear = [path for path, m in skeleton.named_modules() if isinstance(m, torch.nn.Linear) and m is not head]
    exist = sorted({path.rpartition(".")[2] for path in linear})
    unknown = [t for t in targets if not any(path == t or path.endswith(f".{t}") for path in linear)]
    if unknown:
        other = f"the linear modules are {', '.join(exist)}" if exist else "it has none; leave trainer.lora out"
        raise ConfigError(
            f"trainer.lora.targets: {unknown[0]!r} matches no linear module of {name!r} below its output head; {other}"
        )


def check_packed_bytes(name: str, packed_bytes: int, element_bytes: int) -> None:
    """Raises ConfigError if the model's largest tensor does not fit into the buffer of a packed transfer. Reads no weights.

    Args:
        packed_bytes: the size of the buffer.
        element_bytes: bytes per element of the weights as they are sent.
    """
    largest, numel = max(((path, p.numel()) for path, p in _skeleton(name).named_parameters()), key=lambda found: found[1])
    if numel * element_bytes > packed_bytes:
        raise ConfigError(
            f"sync.packed_bytes: {packed_bytes} given, but with sync.backend ipc every tensor must fit, and {largest} of "
            f"{name!r} has {numel * element_bytes} bytes; raise it to that, or leave it out"
        )


def _skeleton(name: str) -> Any:
    """The model as transformers builds it, on the meta device: without memory for its parameters."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(resolve(name)))


def check_tokenizers(student: ModelInfo, teacher: ModelInfo, key: str = "teacher.model") -> None:
    """Compare two tokenizers, id by id and on PROBES. The numbers of output rows may differ (Qwen pads them by model size).

    Raises:
        ConfigError: an id stands for different tokens, or exists in only one tokenizer, or a text is split differently. Names
            the first difference.
    """
    differing = [
        i for i in sorted(student.tokens.keys() | teacher.tokens.keys()) if student.tokens.get(i) != teacher.tokens.get(i)
    ]
    if differing:
        i = differing[0]
        raise ConfigError(
            f"{key}: the tokenizers of student {student.name!r} and teacher {teacher.name!r} disagree at "
            f"{len(differing)} ids, first at id {i}: student {student.tokens.get(i)!r}, teacher {teacher.tokens.get(i)!r}; "
            f"the teacher scores the student's token ids, so both must have one tokenizer; or set {_own(key)}, with which it "
            "reads the student's text in tokens of its own"
        )
    for text, ours, theirs in zip(PROBES, student.probes, teacher.probes, strict=True):
        if ours != theirs:
            raise ConfigError(
                f"{key}: the tokenizers of student {student.name!r} and teacher {teacher.name!r} have the same tokens but cut "
                f"text differently: {text!r} is {_start(ours)} to the student and {_start(theirs)} to the teacher; responses "
                f"would be unusual text to the teacher, so both must have one tokenizer; or set {_own(key)}"
            )


def _own(key: str) -> str:
    """What lets the teacher, whose model is given by ``key``, have another tokenizer."""
    return f"{key.rpartition('.')[0]}.tokenizer=own"


def _start(ids: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, ids[:8]))}{', ...' if len(ids) > 8 else ''}]"
