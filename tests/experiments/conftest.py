"""Records that may still be in the making."""

import json
from collections.abc import Callable

import pytest

from llmtutor.experiments.catalogue import find_study
from llmtutor.experiments.study import Record, load_record, results_dir


@pytest.fixture
def whole() -> Callable[[str], Record]:
    """The record of a study by name; the test is skipped while runs of it are missing."""

    def found(name: str) -> Record:
        if not (results_dir() / f"{name}.json").is_file():
            pytest.skip(f"the study {name} is not made yet: llmtutor experiment run {name}")
        record = load_record(name)
        planned = len(json.loads(json.dumps(find_study(name).runs(record.plan))))
        if len(record.runs) < planned:
            pytest.skip(f"the study {name} has {len(record.runs)} of its {planned} runs")
        return record

    return found
