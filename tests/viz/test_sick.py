"""The gallery of chapter 11 and its table: numbers of the record under the right letters."""

from llmtutor.experiments import sick_curves as sick
from llmtutor.experiments.study import load_record
from llmtutor.viz.sick import ends, gallery

LETTERS = {"leak": "A", "dead": "B"}


def test_a_letter_shows_the_run_of_its_illness() -> None:
    record = load_record(sick.STUDY)
    said = gallery(LETTERS, record).description
    (leak,) = record.results(illness="leak", seed=0)
    first = leak["curve"]["loss"][0]
    assert f"A: training from {first:.2f} to 0.00" in said
    assert "B: training from 4.43 to 4.43" in said and "healthy: training from" in said


def test_ends_are_means_over_seeds() -> None:
    record = load_record(sick.STUDY)
    healthy, leak, dead = ends(LETTERS, record).rows
    assert [row[0] for row in (healthy, leak, dead)] == ["healthy", "A", "B"]
    assert leak[1] == "0.00" and dead[4] == "0.0" and healthy[3] == ""
    assert dead[1] == dead[2]  # it reports what it is worth, and in the same unit
    losses = sick.by_seed(record, "leak").values()
    assert leak[2] == f"{sum(losses) / len(losses):.2f}"
    low, high = sick.verdicts(record)["dead"].t_interval
    assert dead[3] == f"{low:+.2f} to {high:+.2f}"
