"""The picture of ``renio status``."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from deploy.status_picture import picture

STATUS = {
    "run": "mine", "state": "running", "step": 13, "steps": 100, "version": "0.13", "incarnation": 0,
    "pools": {"teacher.maths": {"serving": 2, "target": 3, "idle": 0.25, "restarts": 1}},
    "metrics": {"loss": 0.125}, "events": [[0.0, "metrics at http://127.0.0.1:9200/metrics"]],
}  # fmt: skip


def test_it_says_what_the_command_says_and_fetches_nothing() -> None:
    svg = picture(STATUS)
    text = " ".join("".join(ElementTree.fromstring(svg).itertext()).replace("\xa0", " ").split())
    for shown in (
        "mine running step 13/100",
        "teacher.maths",
        "2/3",
        "25%",
        "loss 0.1250",
        "metrics at http://127.0.0.1:9200/metrics",
    ):
        assert shown in text
    assert not re.findall(r"url\(\"?https?:|href=", svg)
