"""Every study of the book has one name, is recorded whole, and is found by it."""

import json

import pytest

from llmtutor.experiments.catalogue import CATALOGUE, find_study
from llmtutor.experiments.study import load_record, results_dir

BEING_MADE = {"choosing", "choosing-cost"}
"""Studies that take longer than a day has; whole ones have no place here."""


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_study_is_recorded_whole_with_its_circumstances(name: str) -> None:
    if name in BEING_MADE and not (results_dir() / f"{name}.json").is_file():
        pytest.skip(f"no run of {name} has been made yet")
    record, study = load_record(name), CATALOGUE[name]
    assert study.name == name and study.description == record.description
    wanted = [json.loads(json.dumps(settings)) for settings in study.runs(record.plan)]
    assert (
        (len(record.runs) < len(wanted))
        if name in BEING_MADE
        else (len(record.runs) == len(wanted))
    )
    assert all(run["settings"] in wanted for run in record.runs)
    for run in record.runs:
        assert run["cpu_seconds"] >= 0 and record.planned <= run["started"] <= run["finished"]
        assert record.environments[run["environment"]]["versions"]["torch"]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("siezs", "sizes"), ("held_out", "held-out"), ("Tying", "tying"), ("comparson", "comparison")],
)
def test_an_unknown_study_gets_the_nearest_name(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {nearest!r}"):
        find_study(name)
