"""Chapter 11, training: its exercises and the mistakes learners make there."""

import json
from collections.abc import Iterator, Mapping, Sequence

from llmtutor.exercises.core import Exercise, Wrong

# Exercise 1: the loss of a step from its micro-batches.

Losses = Sequence[Sequence[float]]


def _loss_cases() -> Iterator[tuple[Losses]]:
    yield ([[2.0, 4.0], [6.0]],)
    yield ([[1.0, 2.0, 3.0]],)
    yield ([[1.0, 1.0, 1.0, 1.0], [5.0], [3.0, 3.0]],)
    yield ([[0.5], [0.25, 0.25, 0.5]],)


def step_loss(micro_batches: Losses) -> float:
    """Mean over all tokens of a step, whose losses come in micro-batches.

    >>> step_loss([[2.0, 4.0], [6.0]])
    4.0
    """
    return sum(map(sum, micro_batches)) / sum(map(len, micro_batches))


def _mean_of_means(micro_batches: Losses) -> float:
    return sum(sum(part) / len(part) for part in micro_batches) / len(micro_batches)


def _sum_of_means(micro_batches: Losses) -> float:
    return sum(sum(part) / len(part) for part in micro_batches)


def _no_division(micro_batches: Losses) -> float:
    return sum(map(sum, micro_batches))


def _by_the_first(micro_batches: Losses) -> float:
    return sum(map(sum, micro_batches)) / (len(micro_batches) * len(micro_batches[0]))


# Exercise 2: the log of a run that goes on.


def _log_cases() -> Iterator[tuple[str, int]]:
    lines = [json.dumps({"step": step, "loss": 1 / step}) for step in range(1, 6)]
    yield "\n".join(lines) + "\n", 3
    yield "\n".join(lines) + "\n", 9
    yield "\n".join(lines) + '\n{"step": 6, "lo', 5
    yield "\n".join(lines) + "\n", 0
    double = '{"step": 1, "loss": 3.0}\n{"step": 1, "valid_loss": 2.5}\n{"step": 2, "loss": 2.0}\n'
    yield double, 1


def kept_records(text: str, step: int) -> list[dict[str, float]]:
    """The records of a log (one JSON object a line) that a run resumed at ``step`` keeps.

    A last line without its line end was never finished and does not count.

    >>> kept_records('{"step": 1}\\n{"step": 2}\\n{"st', 1)
    [{'step': 1}]
    """
    records = [json.loads(line) for line in text.split("\n")[:-1]]
    return [record for record in records if record["step"] <= step]


def _readable(text: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in text.split("\n")[:-1]]


def _everything(text: str, step: int) -> list[dict[str, float]]:
    return _readable(text)


def _one_too_few(text: str, step: int) -> list[dict[str, float]]:
    return [record for record in _readable(text) if record["step"] < step]


def _one_a_step(text: str, step: int) -> list[dict[str, float]]:
    found = {record["step"]: record for record in _readable(text) if record["step"] <= step}
    return list(found.values())


def _count_lines(text: str, step: int) -> list[dict[str, float]]:
    return _readable(text)[:step]


def _last_line_lost(text: str, step: int) -> list[dict[str, float]]:
    return [record for record in _readable(text)[:-1] if record["step"] <= step]


# Exercise 3: which checkpoints stay.

Table = Mapping[int, float | None]


def _keep_cases() -> Iterator[tuple[Table, int]]:
    yield {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5}, 2
    yield {1: 3.0, 2: 2.0, 3: 1.0}, 2
    yield {1: None, 2: 4.0, 3: None, 4: 5.0, 5: None}, 1
    yield {1: None, 2: None, 3: None}, 2
    yield {7: 1.0}, 3
    yield {10: 2.0, 20: 1.5, 30: 1.6, 40: None, 50: 1.7}, 3


def kept_checkpoints(losses: Table, keep: int) -> list[int]:
    """Steps of the checkpoints that stay: the ``keep`` last ones, and the best besides.

    ``losses`` is validation loss by step, None where it was not taken.

    >>> kept_checkpoints({1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5}, 2)
    [2, 3, 4]
    """
    steps = sorted(losses)
    known = {step: loss for step, loss in losses.items() if loss is not None}
    best = [min(known, key=lambda step: known[step])] if known else []
    return sorted({*steps[-keep:], *best})


def _last_only(losses: Table, keep: int) -> list[int]:
    return sorted(losses)[-keep:]


def _best_only(losses: Table, keep: int) -> list[int]:
    known = {step: loss for step, loss in losses.items() if loss is not None}
    return sorted(sorted(known, key=lambda step: known[step])[:keep])


def _highest(losses: Table, keep: int) -> list[int]:
    known = {step: loss for step, loss in losses.items() if loss is not None}
    best = [max(known, key=lambda step: known[step])] if known else []
    return sorted({*sorted(losses)[-keep:], *best})


def _best_counts(losses: Table, keep: int) -> list[int]:
    known = {step: loss for step, loss in losses.items() if loss is not None}
    best = [min(known, key=lambda step: known[step])] if known else []
    rest = [step for step in sorted(losses) if step not in best]
    room = keep - len(best)
    return sorted([*best, *(rest[-room:] if room else [])])


def _none_is_zero(losses: Table, keep: int) -> list[int]:
    best = min(losses, key=lambda step: losses[step] or 0.0)
    return sorted({*sorted(losses)[-keep:], best})


EXERCISES = [
    Exercise(
        name="training.step_loss",
        cases=_loss_cases,
        reference=step_loss,
        wrong=[
            Wrong(
                _mean_of_means,
                "This is the mean of the micro-batches' means: a token in a short micro-batch "
                "weighs more than one in a long one. Add all losses, divide once by all tokens.",
            ),
            Wrong(
                _sum_of_means,
                "The means of the micro-batches are added up, so the loss (and the gradient) grows "
                "with their number. Divide by the tokens of the whole step.",
            ),
            Wrong(
                _no_division,
                "This is the sum over all tokens. A step's loss is their mean, or the learning "
                "rate would depend on the size of the batch.",
            ),
            Wrong(
                _by_the_first,
                "Every micro-batch is taken to be as long as the first. Count the tokens of each.",
            ),
        ],
    ),
    Exercise(
        name="training.kept_records",
        cases=_log_cases,
        reference=kept_records,
        wrong=[
            Wrong(
                _everything,
                "Records beyond the checkpoint stay. The resumed run takes these steps again, and "
                "they would be in the log twice.",
            ),
            Wrong(
                _one_too_few,
                "The checkpoint's own step is dropped. It was done before the checkpoint was "
                "written, and no one will do it again: keep step <= the checkpoint's.",
            ),
            Wrong(
                _one_a_step,
                "Only one record is kept for each step, but a step may have two, such as a "
                "training loss and a validation loss.",
            ),
            Wrong(
                _count_lines,
                "The first lines are kept, as many as there were steps. A line is not a step: look "
                "at the number in the record.",
            ),
            Wrong(
                _last_line_lost,
                "The last whole line is thrown away. A line that ends in a line end was written to "
                "its end; only what follows the last line end is unfinished.",
            ),
        ],
    ),
    Exercise(
        name="training.kept_checkpoints",
        cases=_keep_cases,
        reference=kept_checkpoints,
        wrong=[
            Wrong(
                _last_only,
                "The last ones stay, and the best is thrown away as soon as it is old. Keep it "
                "besides the others.",
            ),
            Wrong(
                _best_only,
                "These are the lowest losses. To go on one needs the last checkpoints, however "
                "good they are.",
            ),
            Wrong(
                _highest,
                "The checkpoint with the highest loss is kept as the best. A lower loss is better.",
            ),
            Wrong(
                _best_counts,
                "The best takes the place of one of the last. It is kept besides them, unless it "
                "is one of them.",
            ),
            Wrong(
                _none_is_zero,
                "A checkpoint without a validation loss counts as one with loss 0. None means not "
                "measured; such a checkpoint cannot be the best.",
            ),
        ],
    ),
]
