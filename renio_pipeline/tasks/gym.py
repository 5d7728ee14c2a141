"""The tasks of reasoning-gym: its generators make the problems, its verifiers score the answers.

A row is identified by its index. A grader generates the whole entry again, so the verifier's metadata, which may be of any
type, is never sent between processes.
"""

from __future__ import annotations

import difflib
import re
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from multiprocessing import get_context
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.config.mixture import Recipe
from renio_pipeline.tasks.protocol import Split
from renio_pipeline.types import Row, Verdict

INSTRUCTION = "Think step by step. Give your final answer, and nothing else, between <answer> and </answer>."
CORRECT = 0.99  # scores lie in [0, 1]; answers that are nearly right get a score in between

_UNREPEATABLE = (
    "task_options.dataset: reasoning-gym's {} generates different problems each time, so its answers cannot be graded"
)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class ReasoningGym:
    """A data set of reasoning-gym."""

    name = "reasoning-gym"
    recipe: Recipe
    slow = True

    def __init__(self, dataset: str, config: dict[str, Any] | None = None, seed: int = 0, size: int = 20_000) -> None:
        """
        Args:
            dataset: the data set's name in reasoning-gym, such as ``chain_sum``.
            config: keys of the data set's own configuration, such as ``{min_terms: 2, max_terms: 3}``.
            seed: the seed of the generator.
            size: the number of entries from which both splits are taken; of entries with the same problem, the first counts.

        Raises:
            ConfigError: reasoning-gym is not installed, has no such data set, or rejects the configuration.
        """
        self._label, self._size = dataset, size
        self._make = partial(_made, dataset, config or {}, seed, size)
        self._data = self._make()
        self._entry = lru_cache(512)(self._data.__getitem__)

    def rows(self, split: Split, count: int) -> list[Row]:
        """The first ``count`` distinct problems of a split, by a hash of the text. Raises ConfigError if there are too few."""
        found: dict[str, Row] = {}
        for index in range(self._size):
            if len(found) == count:
                break
            entry = self._entry(index)
            problem = str(entry["question"])
            if problem not in found and _split_of(problem) == split:
                answer = None if entry["answer"] is None else str(entry["answer"])
                found[problem] = Row(id=f"{self._label}-{index}", problem=problem, answer=answer)
        if len(found) < count:
            raise ConfigError(
                f"data.problems or evaluate.problems: {count} problems requested of split {split}, but {self._label} has "
                f"{len(found)} in its first {self._size} entries; ask for fewer, or raise task_options.size"
            )
        rows = list(found.values())
        if split == "train":  # once per run is enough
            self._check_repeats(rows)
        return rows

    def messages(self, row: Row) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"{row.problem}\n\n{INSTRUCTION}"}]

    def privileged_messages(self, row: Row) -> list[dict[str, str]]:
        raise ConfigError("method.privileged: reasoning-gym has answers, but no solutions to show to a teacher")

    def verify(self, row: Row, text: str) -> Verdict | None:
        """Correct if the score is at least 0.99. An answer on which the verifier raises is incorrect."""
        answer = self.final_answer(text)
        if answer is None:
            return "unfinished"
        entry = self._of(row)
        try:
            return "correct" if self._data.score_answer(answer, entry) >= CORRECT else "incorrect"
        except Exception:
            return "incorrect"

    def final_answer(self, text: str) -> str | None:
        """The text between the last ``<answer>`` and ``</answer>``."""
        found = _ANSWER.findall(text)
        return found[-1].rpartition("<answer>")[2].strip() or None if found else None

    def fault(self, row: Row) -> str | None:
        try:
            self._of(row)
        except ConfigError as error:
            return str(error)
        return None

    def _check_repeats(self, rows: list[Row]) -> None:
        """Check that another process, with other hash seeds and in another order, finds the same problem at each index."""
        some = rows[:: -(len(rows) // 12 + 1)]
        indices = [int(row.id.rpartition("-")[2]) for row in some]
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
            found = other.submit(_questions, self._make, indices).result()
        if found != [row.problem for row in some]:
            raise ConfigError(_UNREPEATABLE.format(self._label))

    def _of(self, row: Row) -> dict[str, Any]:
        label, _, index = row.id.rpartition("-")
        if label != self._label or not index.isdecimal() or int(index) >= self._size:
            raise ConfigError(f"row {row.id!r} is not from reasoning-gym; leave data.path and data.held_out_path out")
        entry: dict[str, Any] = self._entry(int(index))
        if entry["question"] != row.problem:
            raise ConfigError(_UNREPEATABLE.format(self._label))
        return entry


def _split_of(problem: str) -> Split:
    return "held_out" if zlib.crc32(problem.encode()) % 8 == 0 else "train"


def _questions(make: Callable[[], Any], indices: list[int]) -> list[str]:
    data = make()
    return [str(data[index]["question"]) for index in indices]


def _made(dataset: str, config: dict[str, Any], seed: int, size: int) -> Any:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise ConfigError(
            f"task: reasoning-gym needs its package, pip install renio-pipeline[reasoning-gym] ({error})"
        ) from error
    if dataset not in DATASETS:
        near = difflib.get_close_matches(dataset, DATASETS, n=3) or sorted(DATASETS)
        raise ConfigError(f"task_options.dataset: reasoning-gym has no {dataset!r}; it has {', '.join(near)}")
    allowed = [key for key in DATASETS[dataset][1].__dataclass_fields__ if key not in ("seed", "size")]
    if unknown := [key for key in config if key not in allowed]:
        raise ConfigError(f"task_options.config.{unknown[0]}: {dataset} has no such key; allowed: {', '.join(allowed)}")
    try:
        return reasoning_gym.create_dataset(dataset, **config, seed=seed, size=size)
    except Exception as error:  # its checks are assertions, and a wrong type fails wherever it is first used
        raise ConfigError(f"task_options.config: {dataset} rejects it: {type(error).__name__}: {error}") from error
