"""Every reader and writer of text files under a locale whose text is ASCII, as a container's often is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = "é 日本 👩 π"
# UTF-8 mode, into which Python goes by itself under POSIX, would hide what depends on the locale.
ASCII = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONWARNDEFAULTENCODING": "1"}
OWN = f"""
from renio_pipeline.weightings.uniform import Uniform

class Mine(Uniform):
    '''{WORDS}'''
    type: str = "custom"
"""
READERS = """
import sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module=r"(renio_pipeline|actors)\\\\b")
from pathlib import Path

from actors.doctor import probes
from renio_pipeline import cli
from renio_pipeline.config import load
from renio_pipeline.config.schema import Source
from renio_pipeline.data.sources import load_rows
from renio_pipeline.doctor.requirements import requirements
from renio_pipeline.evaluation.markers import Markers
from renio_pipeline.evaluation.records import Problem, Sample
from renio_pipeline.evaluation.results import read_results
from renio_pipeline.evaluation.suites import suites
from renio_pipeline.metrics.sink import JsonlSink
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.run_dir.recorded_config import recorded_config
from renio_pipeline.run_dir.run_log import RunLog
from renio_pipeline.stages.engine_limits import EngineLimits, read_limits, record_limits

folder, words = Path(sys.argv[1]), sys.argv[2].encode("ascii", "surrogateescape").decode("utf-8")
config = load(folder / "run.yaml", [f"run_dir={folder}/run"])
assert config.task_options["prompt"] == words
assert words in config.weighting.file.source
RunDirectory(config).write_result({"words": words})
RunDirectory(config).write_samples(1, [{"sample_id": 0, "token_ids": [1], "response": words, "verdict": None}])
assert recorded_config(folder / "run") == config
record_limits(folder / "run", {"generator": EngineLimits(sequences=1, batched_tokens=2, cache_tokens=None)})
assert read_limits(folder / "run")
JsonlSink(folder / "run/metrics.jsonl").write(1, {"loss": 1.0})
with RunLog(folder / "run/log.txt") as log:
    log.note(words)
QuarantineLog(folder / "run/rejected.jsonl", lambda text: None).add(1, words, "generator", words)
for name in ("rows.jsonl", "rows.json", "rows.csv"):
    assert load_rows(Source(path=str(folder / name)))[0].problem == words, name
assert Markers.read(str(folder / "markers.txt")).count(words)
assert Markers.read(None).phrases
assert suites()
assert read_results(str(folder / "results"))[1]["set"][0].problem == words
assert requirements().allowed
assert probes.machine()["ports"]
for arguments in (["config", "--config", f"{folder}/run.yaml"], ["check", "--offline", "--config", f"{folder}/plain.yaml"]):
    assert cli.main(arguments) == 0, arguments
print(words)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    row = {"problem": WORDS, "answer": "1"}
    sample = {"answer": "1", "verdict": "correct", "tokens": 1, "stop_reason": "stop", "response": WORDS}
    models = "student: embedded:student\nteacher: {model: 'embedded:teacher'}\nmax_response_tokens: 48\n"
    plain = f"steps: 1\nname: ascii\n{models}# {WORDS}\n"
    files = {
        "rows.jsonl": json.dumps(row, ensure_ascii=False) + "\n",
        "rows.json": json.dumps([row], ensure_ascii=False),
        "rows.csv": f"problem,answer\n{WORDS},1\n",
        "markers.txt": f"{WORDS}\n",
        "mine.py": OWN,
        "plain.yaml": plain,
        "run.yaml": f"{plain}task_options: {{prompt: {WORDS}}}\nweighting: {{type: custom, path: '{tmp_path}/mine.py:Mine'}}\n",
        "results/set.jsonl": json.dumps({"id": "1", "gold": "1", "samples": [sample], "problem": WORDS}, ensure_ascii=False)
        + "\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    return tmp_path


def test_every_reader_and_writer_works_where_the_locale_is_posix(folder: Path) -> None:
    environment = {**os.environ, **ASCII, "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-c", READERS, str(folder), WORDS]
    ran = subprocess.run(program, capture_output=True, cwd=folder, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr.decode(errors="replace")[-3000:]
    assert WORDS in ran.stdout.decode(), "what is printed is UTF-8 too"
    assert WORDS in (folder / "run/log.txt").read_text(encoding="utf-8")
