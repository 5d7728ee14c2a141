"""The names that published data sets and other frameworks have for our fields: ``data.preset``.

A name with a point is a field inside of an object. Fields with spaces are derived, see ``renio_pipeline.data.layouts.known``.
"""

from __future__ import annotations

from typing import Literal

FieldName = Literal["id", "problem", "answer", "solution", "teacher", "tests", "teacher_prompt", "privileged_context"]
Preset = Literal[
    "openthoughts-maths", "openthoughts-code", "trl", "verl", "gsm8k", "math", "deepmath", "dapo", "humaneval", "mbpp", "chat",
]  # fmt: skip
PRESETS: dict[Preset, dict[FieldName, str]] = {
    "openthoughts-maths": {"problem": "problem", "solution": "solution", "answer": "Answer"},
    "openthoughts-code": {"problem": "problem", "solution": "ground_truth_solution", "tests": "test_cases"},
    "trl": {"problem": "prompt", "answer": "solution", "solution": "privileged_context"},
    "verl": {"problem": "prompt", "answer": "reward_model.ground_truth", "solution": "extra_info.answer"},
    "gsm8k": {"problem": "question", "answer": "final answer", "solution": "answer"},
    "math": {"problem": "problem", "answer": "answer", "solution": "solution", "id": "unique_id"},
    "deepmath": {"problem": "question", "answer": "final_answer", "solution": "r1_solution_1"},
    "dapo": {"problem": "prompt", "answer": "reward_model.ground_truth", "id": "extra_info.index"},
    "humaneval": {"id": "task_id", "problem": "prompt", "solution": "canonical_solution"},
    "mbpp": {"id": "task_id", "problem": "prompt and a test", "solution": "code"},
    "chat": {"problem": "messages to answer", "solution": "last answer"},
}
SPARSE: tuple[FieldName, ...] = ("id", "solution")  # that a preset's data may lack
