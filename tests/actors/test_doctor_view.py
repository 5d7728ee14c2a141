"""``renio doctor``: what people and programs read, and the command's exit codes before Ray starts."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from renio_pipeline import cli
from renio_pipeline.doctor.examination import findings
from renio_pipeline.doctor.facts import Cluster
from renio_pipeline.doctor.view import as_json, healthy, show, verdict
from tests.unit.doctor_facts import REQUIRED, cluster, facts, machine


def shown(found: Cluster, *, terminal: bool) -> str:
    out = StringIO()
    show(findings(found, REQUIRED), Console(file=out, force_terminal=terminal, width=100, highlight=False))
    return out.getvalue()


SICK = cluster(b=facts("b", machine=machine(shm=2**26)), c=facts("c", machine=machine(open_files=4096)))


def test_in_a_pipe_each_check_of_each_node_is_a_line_and_the_advice_follows() -> None:
    table, mend, look, last = shown(SICK, terminal=False).rstrip("\n").split("\n\n")
    lines = table.splitlines()
    assert lines[0].split() == ["node", "check", "result", "what", "was", "seen"]
    assert [line.split()[:3] for line in lines[1:] if " ok " not in line] == [
        ["b", "shm", "fault"],
        ["c", "open_files", "warning"],
    ]
    assert [line.split()[1] for line in lines if line.startswith("a ")] == [
        "node",
        "versions",
        "gpus",
        "cuda",
        "shm",
        "object_store",
        "open_files",
        "run_dir",
        "ports",
    ]
    assert mend.startswith("what must be fixed:\n  b: shm: give the container at least 32 GiB")
    assert look.startswith("what should be checked:\n  c: open_files: run `ulimit -n 65536`")
    assert last == "1 fault on b; a run could fail there"


def test_on_a_terminal_it_is_a_table_that_fits() -> None:
    text = shown(SICK, terminal=True)
    assert "━" in text or "─" in text
    assert "\x1b[1;31mfault" in text


def test_warnings_alone_are_healthy_and_faults_are_not() -> None:
    assert not healthy(findings(SICK, REQUIRED))
    found = findings(cluster(c=facts("c", machine=machine(open_files=4096))), REQUIRED)
    assert healthy(found)
    assert verdict(found) == "no faults on 3 nodes, 1 to check"


def test_a_fault_takes_the_place_of_the_same_checks_good_result() -> None:
    found = findings(cluster(b=facts("b", software=replace(facts().software, python="3.12.0"))), REQUIRED)
    assert [f.level for f in found if (f.node, f.check) == ("b", "versions")] == ["fault"]


def test_a_program_reads_every_fact_and_finding() -> None:
    silent = cluster(b="no answer within 60 s")
    found = json.loads(json.dumps(as_json(silent, findings(silent, REQUIRED))))
    assert found.keys() == {"healthy", "findings", "nodes", "collectives"}
    assert found["healthy"] is False
    assert [node["facts"] is None for node in found["nodes"]] == [False, True, False]
    assert found["nodes"][0]["facts"]["machine"]["driver"]["gpus"][0]["total"] == 80 * 2**30
    assert found["findings"][0].keys() == {"node", "check", "level", "seen", "advice"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["steps=3"], "--config: none is given, so that 'steps=3' overrides nothing"),
        (["--config", "/no/such.yaml"], "configuration file /no/such.yaml does not exist"),
        (["--address", "ray://head:10001"], "--address: ray://head:10001: a driver must be on a node of the cluster"),
        (["--address", "127.0.0.1:1"], "--address: no Ray cluster answers at 127.0.0.1:1"),
        (["--address", "nonsense"], "--address: 'nonsense': expected HOST:PORT"),
    ],
)
def test_bad_input_is_exit_code_2_before_any_cluster(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cli.main(["doctor", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {told}")


def test_auto_without_a_cluster_on_this_machine_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from actors.cluster import address
    from renio_pipeline import cli

    monkeypatch.setattr(address, "local_clusters", lambda everyone=False: [])
    assert cli.main(["doctor", "--address", "auto"]) == 2
    assert "--address: auto: no Ray cluster has a node on this machine; start one with `ray start" in capsys.readouterr().err
