"""A lost worker is described in one line of plain words, whatever Ray says of it."""

from __future__ import annotations

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)

from actors.errors import EngineFailed, plain_reason
from actors.pools.waiting import WorkerLost

RPC = "RpcError: RPC Error message: Socket closed; RPC Error details: rpc_code: 14"


def died(message: str, pid: int = 41, ip: str = "10.0.0.7") -> ActorDiedError:
    context = ActorDiedErrorContext(
        error_message=message, class_name="Generator", actor_id=b"\1" * 16, pid=pid, node_ip_address=ip, name=""
    )
    return ActorDiedError(context)


REASONS = {
    died("The actor died because its node has died. Node Id: 0a1b\n\tthe actor's node was terminated unexpectedly: health "
         "check failed due to missing too many heartbeats"): "its node 10.0.0.7 is lost",
    died("The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
         "unexpectedly exits with a connection error code 2. End of file."): "its process died (on node 10.0.0.7)",
    died("The actor is dead because it was killed by `ray.kill`."): "it was killed",
    died("no words", pid=0, ip=""): "its process died",
    ActorDiedError(): "its process died",
    ActorUnavailableError(RPC, b"\1" * 16): "its process or its node cannot be reached",
    NodeDiedError(f"Task failed.\n{RPC}"): "its node is lost",
    OutOfMemoryError("Memory on the node was 63 GB\n5 workers"): "its process was killed because its node ran out of memory",
    WorkerCrashedError(): "its process died",
    EngineFailed("out of blocks\nat line 3"): "out of blocks",
    WorkerLost("no answer to a ping in 30 s"): "no answer to a ping in 30 s",
    ValueError(""): "ValueError",
}  # fmt: skip


@pytest.mark.parametrize(("error", "words"), REASONS.items(), ids=lambda x: x if isinstance(x, str) else type(x).__name__)
def test_a_loss_is_one_line_without_the_machinery_s_words(error: Exception, words: str) -> None:
    assert plain_reason(error) == words


@pytest.mark.parametrize("error", [EngineFailed("out of blocks\nat line 3"), WorkerLost("no answer"), WorkerCrashedError()])
def test_so_is_one_that_comes_from_within_a_task(error: Exception) -> None:
    assert plain_reason(RayTaskError("score", "a traceback", error).as_instanceof_cause()) == plain_reason(error)
