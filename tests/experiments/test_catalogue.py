"""Every study of the book has one name, is recorded whole, and is found by it."""

import json

import pytest

from llmtutor.experiments.catalogue import CATALOGUE, find_study
from llmtutor.experiments.study import load_record


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_study_is_recorded_whole_with_its_circumstances(name: str) -> None:
    record, study = load_record(name), CATALOGUE[name]
    assert study.name == name and study.description == record.description
    wanted = [json.loads(json.dumps(settings)) for settings in study.runs(record.plan)]
    assert len(record.runs) == len(wanted)
    assert all(run["settings"] in wanted for run in record.runs)
    for run in record.runs:
        assert run["cpu_seconds"] >= 0 and record.planned <= run["started"] <= run["finished"]
        assert record.environments[run["environment"]]["versions"]["torch"]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("siezs", "sizes"), ("held_out", "held-out"), ("Tying", "tying"), ("chosing", "choosing")],
)
def test_an_unknown_study_gets_the_nearest_name(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {nearest!r}"):
        find_study(name)
