"""Values that several sections share, and the base of all sections."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)


def _no_half(name: Any) -> Any:
    if str(name).lower().removeprefix("torch.") in ("float16", "fp16", "half"):
        raise ValueError(
            f"{name!r} is not allowed: half precision overflows without loss scaling, which the pipeline does not do; allowed: "
            "float32, bfloat16"
        )
    return name


Dtype = Annotated[Literal["float32", "bfloat16"], BeforeValidator(_no_half)]


DTYPE_BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2}


Beta = Annotated[float, Field(ge=0, lt=1)]


_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"


LabelSelector = Annotated[
    str,
    Field(pattern=rf"^!?(?:{_WORD}|in\({_WORD}(?:, ?{_WORD})*\))$"),
    AfterValidator(lambda text: text.replace(" ", "")),  # Ray accepts the spaces, and takes them for a part of the values
]


LabelKey = Annotated[str, Field(pattern=rf"^(?:{_WORD}/)?{_WORD}$")]


def _custom(name: str) -> str:
    keys = {"CPU": "cpus", "GPU": "gpus"}
    if name in keys or name in ("memory", "object_store_memory"):
        raise ValueError(f"{name} is Ray's own; " + (f"set {keys[name]} instead" if name in keys else "choose another name"))
    return name


ResourceName = Annotated[str, Field(min_length=1), AfterValidator(_custom)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Method(Section):
    """Base of what ``method.type`` chooses from: what a student learns from."""

    type: str
    needs_verdicts: ClassVar[bool] = False  # True: every training row must have an answer that the task can verify
    # What a section is where the configuration does not give its type; keys that it does give are kept.
    sections: ClassVar[dict[str, dict[str, Any]]] = {}

    def check(self, config: Any) -> None:
        """Refuse a RunConfig that this method cannot work with. Raises ValueError that names the key to change."""
