"""Every test has an engine of its own, which takes a hundredth of a second."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from actors.engines.generator import Generator
from actors.engines.specs import EngineSpec
from tests.async_engine.building import SPEC, build
from tests.async_engine.driving import Rig

MakeRig = Callable[..., Rig]

logging.getLogger("vllm").setLevel(logging.ERROR)  # each engine logs its whole configuration


@pytest.fixture
def make_rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeRig]:
    """Keyword arguments of ``EngineSpec``; ``options``: those of ``build``."""
    rigs: list[Rig] = []

    def make(*, options: dict[str, Any] | None = None, **spec: Any) -> Rig:
        monkeypatch.setattr("actors.engines.vllm_replica.build_engine", partial(build, **(options or {})))
        rigs.append(Rig(Generator(EngineSpec(**vars(SPEC) | spec))))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.device.close()
        assert rig.device.torn == 0, "weights changed beneath a batch"


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    return make_rig()
