"""The table for who chooses: each cell from the raw runs, and empty where nothing is known."""

from typing import Any

from llmtutor.experiments.choosing.cost import FIGURES, Ratio
from llmtutor.experiments.choosing.options import OPTIONS
from llmtutor.experiments.choosing.overview import COLUMNS, overview
from llmtutor.experiments.choosing.plan import NAME
from llmtutor.experiments.study import Record, load_record


def run(option: str, seed: int, loss: float, size: str = "small") -> dict[str, Any]:
    result = {"bits_per_byte": loss, "n_params": 1000, "n_active": 900, "train_flops": 10**12}
    result |= {"pairs": {"right": 60, "n": 100}}
    return {"settings": {"size": size, "option": option, "lr": 0.1, "seed": seed}, "result": result}


RUNS = [
    *(run("baseline", seed, 2.0 + 0.01 * seed) for seed in range(3)),
    *(run("baseline again", seed, 2.02 + 0.01 * seed) for seed in range(3)),
    *(run("mqa", seed, 2.11 + 0.01 * seed + 0.001 * (seed == 1)) for seed in range(3)),
    run("gelu", 0, 2.5),
]
COSTS = {
    "mqa": {
        f: Ratio(0.25, (0.25, 0.25) if "bytes" in f else (0.2, 0.3), 7.0, (6.0, 8.0))
        for f in FIGURES
    }
}


def by_column(cells: tuple[str, ...]) -> dict[str, str]:
    """The cells of a row by their column, with blanks that may end a line."""
    plain = (cell.replace("\N{NO-BREAK SPACE}", " ") for cell in cells)
    return dict(zip(COLUMNS, plain, strict=True))


def test_a_row_says_what_the_runs_say() -> None:
    baseline, mqa = overview(Record(NAME, "", {}, "", [], RUNS), COSTS, "small")
    assert len(mqa) == len(baseline) == len(COLUMNS)
    row = by_column(mqa)
    assert row["bits per byte"] == "2.120" and row["gap"] == "+0.100 [+0.080, +0.120]"
    assert row["verdict"] == "worse" and row["worth, in compute"] == ""
    assert row["minimal pairs"] == "60.0% [50.2%, 69.1%]"
    assert (row["parameters"], row["active"]) == ("1,000", "900")
    assert (row["group"], row["what differs"]) == ("attention", OPTIONS["mqa"].says)
    assert (row["training"], row["cache"]) == ("0.25 [0.20, 0.30]", "0.25")
    row = by_column(baseline)
    assert row["bits per byte"] == "2.020"  # the twin's runs are the baseline's too
    assert row["gap"] == row["verdict"] == row["training"] == ""


def test_a_second_size_prices_a_gap_in_compute() -> None:
    for made in RUNS:
        if made["settings"]["option"] == "mqa":
            made["result"]["train_flops"] = 2 * 10**12
    more = [run("baseline", 0, 1.91, "middle"), run("baseline again", 0, 1.93, "middle")]
    for made in more:
        made["result"]["train_flops"] = 2 * 10**12
    rows = overview(Record(NAME, "", {}, "", [], RUNS + more), {}, "small")
    row = by_column(rows[1])  # 0.1 for each doubling
    assert row["worth, in compute"] == "0.50 [0.43, 0.57]"
    assert (row["operations"], row["worth / operations"]) == ("2.00", "0.25")


def test_nothing_is_an_empty_table_and_the_record_fills_one() -> None:
    assert overview(Record(NAME, "", {}, "", [], []), {}, "small") == []
    for size in ("small", "middle", "large"):
        for row in overview(load_record(NAME), {}, size):
            assert len(row) == len(COLUMNS)
            assert (
                1 < float(row[COLUMNS.index("bits per byte")]) < 4
            )  # a head that was lost costs more than half a bit
