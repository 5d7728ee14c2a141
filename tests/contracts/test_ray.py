"""Ray's errors, options, names and constants."""

from __future__ import annotations

import copyreg
import inspect
import io
import pickle
from pathlib import Path

import pytest

from tests.contracts.reliance import expressions, parameters, relied_on


@relied_on(
    "ray",
    "actors.errors.GONE",
    "actors.pools.worker.is_loss",
    "actors.weight_sync.client.why_lost",
    breaks="a lost worker would end the run",
)
def test_these_errors_say_that_an_actor_is_gone() -> None:
    from ray import exceptions

    from actors.errors import GONE

    assert issubclass(exceptions.ActorDiedError, exceptions.RayActorError)
    assert issubclass(exceptions.ActorUnavailableError, exceptions.RayActorError)
    for not_an_actor_s in (exceptions.OutOfMemoryError, exceptions.NodeDiedError, exceptions.WorkerCrashedError):
        assert not issubclass(not_an_actor_s, exceptions.RayActorError)  # hence each is named
        assert not_an_actor_s in GONE
    assert issubclass(exceptions.GetTimeoutError, TimeoutError)
    assert not issubclass(exceptions.RayTaskError, GONE)
    assert not issubclass(exceptions.ObjectLostError, GONE)


@relied_on(
    "ray",
    "actors.pools.supervisor.Workers._life",
    "actors.trainer.supervisor.Trainers._start_ranks",
    breaks="a model that does not load would be tried for ever instead of ending the run",
)
def test_an_actor_that_died_says_whether_it_was_in_its_constructor() -> None:
    from ray.exceptions import ActorDiedError

    assert ActorDiedError().actor_init_failed is False
    assert isinstance(ActorDiedError.actor_init_failed, property)


@relied_on(
    "ray",
    "actors.pools.worker.is_loss",
    "actors.trainer.publisher.WeightPublisher.publish",
    breaks="the reason of an error would be lost",
)
def test_an_error_of_a_call_carries_its_cause_and_is_of_its_type_too() -> None:
    from ray.exceptions import RayTaskError

    error = RayTaskError("score", "a traceback", ValueError("no such model"))
    assert isinstance(error.cause, ValueError)
    both = error.as_instanceof_cause()
    assert isinstance(both, ValueError)
    assert isinstance(both, RayTaskError)
    assert isinstance(both.cause, ValueError)


@relied_on(
    "ray", "actors.control.mailbox.claim", breaks="a second driver of a live run would not be told that its name is taken"
)
def test_a_name_that_is_taken_is_a_value_error() -> None:
    from ray.exceptions import ActorAlreadyExistsError

    assert issubclass(ActorAlreadyExistsError, ValueError)


@relied_on(
    "ray",
    "actors.packed_messages.PackedList",
    "actors.packed_messages.pack",
    breaks="references would go unseen, and their receiver wait for ever",
)
def test_references_are_of_one_class_which_a_table_of_pickle_finds() -> None:
    import ray

    first, second = ray.ObjectRef.from_random(), ray.ObjectRef.from_random()
    assert type(first) is ray.ObjectRef
    assert {first: 1, second: 2}[ray.ObjectRef(first.binary())] == 1
    found: list[ray.ObjectRef] = []
    pickler = pickle.Pickler(io.BytesIO(), pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = copyreg.dispatch_table | {ray.ObjectRef: lambda ref: (found.append(ref), (str, ()))[1]}
    pickler.dump({"payload": [first, second]})
    assert found == [first, second]
    assert callable(first.future)  # actors.weight_sync.client.ask_actor


@relied_on(
    "ray",
    "actors.cluster.placement.actor_options",
    "actors.control.mailbox.start",
    "actors.pools.worker.Kind.concurrent",
    breaks="an actor could not be started with these options",
)
def test_actors_take_the_options_that_we_give() -> None:
    import ray
    from ray._common.ray_option_utils import actor_options
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

    passed = {
        "num_cpus",
        "num_gpus",
        "resources",
        "runtime_env",
        "label_selector",
        "max_concurrency",
        "name",
        "namespace",
        "max_restarts",
        "scheduling_strategy",
        "concurrency_groups",
    }
    assert passed - actor_options.keys() == set()
    assert list(parameters(NodeAffinitySchedulingStrategy.__init__))[:2] == ["node_id", "soft"]
    assert "placement_group_bundle_index" in parameters(PlacementGroupSchedulingStrategy.__init__)
    assert {"bundles", "strategy", "bundle_label_selector"} <= parameters(ray.util.placement_group).keys()
    assert {"address", "namespace", "log_to_driver", "logging_level", "include_dashboard"} <= parameters(ray.init).keys()


@relied_on(
    "ray",
    "actors.cluster.address.use_token_of_this_machine",
    "actors.cluster.address.TOKEN_HINT",
    breaks="a cluster that asks for a token could not be joined as we say",
)
def test_tokens_are_found_by_these_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ray._private.authentication import authentication_token_setup as setup

    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert setup.AUTH_MODE_ENV_VAR == "RAY_AUTH_MODE"
    assert setup._get_default_token_path() == tmp_path / ".ray/auth_token"
    for name in (b"RAY_AUTH_TOKEN", b"RAY_AUTH_TOKEN_PATH"):  # read by its C++ core
        assert name in _core()


@relied_on(
    "ray",
    "actors.control.attach._connect",
    breaks="joining a cluster that refuses us would take twenty seconds instead of three",
)
def test_tries_to_connect_are_counted_by_this_variable() -> None:
    """Read: it counts when Ray is imported."""
    from ray._private import ray_constants

    assert 'os.environ.get("RAY_NUM_REDIS_GET_RETRIES", "20")' in inspect.getsource(ray_constants)


@relied_on("ray", "actors.cluster.address.local_clusters", breaks="clusters on this machine would not be found")
def test_a_raylet_is_started_with_the_address_of_its_cluster() -> None:
    """Read."""
    from ray._private import services

    assert 'f"--gcs-address={gcs_address}"' in inspect.getsource(services.start_raylet)
    assert "raylet" in services.RAYLET_EXECUTABLE


@relied_on("ray", "actors.cluster.processes._is_rays", breaks="a worker's last words would begin with Ray's own lines")
def test_ray_s_own_lines_in_logs_begin_with_these_words() -> None:
    from ray._private import ray_constants

    from actors.cluster.processes import _is_rays

    for prefix in (ray_constants.LOG_PREFIX_JOB_ID, ray_constants.LOG_PREFIX_ACTOR_NAME, ray_constants.LOG_PREFIX_TASK_NAME):
        assert _is_rays(prefix)


@relied_on(
    "ray",
    "actors.cluster.connection.connect",
    breaks="a driver that is ended would abort instead of unwinding, or Ray would overrule us",
)
def test_ray_takes_sigterm_when_it_is_started() -> None:
    """Read: hence our handler is set after ``ray.init``."""
    import ray

    assert "ray._private.utils.set_sigterm_handler(sigterm_handler)" in expressions(ray.init)


@relied_on(
    "ray", "actors.pools.kinds.generator_kind", breaks="an actor that is asked for a GPU would find none, or all of them"
)
def test_this_variable_keeps_ray_from_choosing_an_actor_s_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    from ray._private.accelerators import nvidia_gpu

    manager = nvidia_gpu.NvidiaGPUAcceleratorManager
    assert nvidia_gpu.NOSET_CUDA_VISIBLE_DEVICES_ENV_VAR == "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "untouched")
    monkeypatch.setenv("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "1")
    manager.set_current_process_visible_accelerator_ids(["3"])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "untouched"
    monkeypatch.delenv("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES")
    manager.set_current_process_visible_accelerator_ids(["3"])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


def _core() -> bytes:
    import ray._raylet

    return Path(ray._raylet.__file__).read_bytes()


@relied_on(
    "ray",
    "actors.cluster.joining.check_answers",
    breaks="an address without a Ray cluster would be tried for ten minutes",
)
def test_a_cluster_says_who_it_is_when_a_client_is_made() -> None:
    """Read: as ``ray.init`` does, again and again."""
    from ray._private import node
    from ray._raylet import GcsClient

    assert callable(GcsClient)
    assert "GcsClient(address=gcs_address,cluster_id=" in "".join(inspect.getsource(node.Node._init_gcs_client).split())


@relied_on(
    "ray",
    "actors.cluster.own_folders.longest_folder",
    "actors.cluster.own_folders._temporary",
    "actors.cluster.own_folders._needs_token_file",
    breaks="a temporary folder too long for sockets, or a home without a token, would end a run with a traceback",
)
def test_rays_folders_are_named_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import ray
    from ray._common.utils import get_default_ray_temp_dir
    from ray._private import node

    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    assert get_default_ray_temp_dir() == "/tmp/ray"
    monkeypatch.setenv("TMPDIR", "/a")
    assert get_default_ray_temp_dir() == "/a/ray"
    monkeypatch.setenv("RAY_TMPDIR", "/b")
    assert get_default_ray_temp_dir() == "/b/ray"
    source = inspect.getsource(node)
    for part in (
        'f"session_{date_str}_{os.getpid()}"',
        '"%Y-%m-%d_%H-%M-%S_%f"',
        '(self._session_dir, "sockets")',
        '"plasma_store"',
    ):
        assert part in source, part
    assert "ensure_token_if_auth_enabled(_system_config, create_token_if_missing=True)" in inspect.getsource(ray.init)
