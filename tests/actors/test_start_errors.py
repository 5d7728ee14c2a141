"""From Ray's text about a constructor that raised to the error that the user is told."""

from __future__ import annotations

import traceback

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from actors.errors import EngineFailed
from actors.pools.start_errors import NotStartedError, constructor_error, not_started
from actors.pools.supervisor import _reason
from renio_pipeline.config import ConfigError

QUOTING = """no start: ValueError: x
its last lines:
  |   File "vllm/v1/engine/core.py", line 326, in _initialize_kv_caches
  |     kv_cache_configs = get_kv_cache_configs(
  |                        ^^^^^^^^^^^^^^^^^^^^^
  | ValueError: x"""


def died(error: Exception) -> ActorDiedError:
    """As Ray makes it of an error in an actor's constructor."""
    try:
        raise error
    except Exception as raised:
        cause = RayTaskError("Generator.__init__", traceback.format_exc(), raised, pid=7, ip="10.0.0.1", actor_id="ab" * 16)
    return ActorDiedError(cause)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no such model"), "ValueError: no such model"),
        (EngineFailed(QUOTING), "actors.errors.EngineFailed: no start: ValueError: x\nits last lines:\n  |   File"),
        (KeyError(), "KeyError"),
    ],
)  # fmt: skip
def test_the_error_that_a_constructor_raised_is_told_whole_with_pool_and_replica(error: Exception, told: str) -> None:
    found = died(error)
    assert found.actor_init_failed
    assert constructor_error(found).startswith(told)
    assert str(error).strip("'") in constructor_error(found)
    ends = not_started("teacher.maths", 3, found)
    assert isinstance(ends, NotStartedError)
    assert str(ends).startswith(f"pool teacher.maths: replica 3 did not start: {told}")
    assert _reason(found) == f"it did not start: {constructor_error(found).splitlines()[0]}"


def test_a_fault_of_the_configuration_that_a_node_finds_is_one() -> None:
    told = "generator.separate_process: an engine in a process of its own needs 241 MiB of /dev/shm"
    found = not_started("generator", 0, died(ConfigError(told)))
    assert type(found) is ConfigError
    assert str(found) == told


def test_a_death_of_which_ray_says_nothing_is_no_riddle() -> None:
    assert constructor_error(ActorDiedError())
