"""Chapter 22, evaluation: which benchmark tells the rungs of the staircase apart.

Every model is asked the same questions and reads the same passages of the held-out works, so that
models are compared question by question and passage by passage. One of them knows nothing: for it
every token is as likely as any other, and what it scores is the benchmark's own doing. A rung is
trained as in the study ``staircase``, with its learning rate and its first seed; the last one is
the model that is kept.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from llmtutor.data.shakespeare import HELD_OUT
from llmtutor.evaluate.examination import examine
from llmtutor.evaluate.items import Item, with_examples
from llmtutor.evaluate.metrics import ALL_ANSWERS
from llmtutor.evaluate.scoring import Subject, sums
from llmtutor.evaluate.tasks.catalogue import Task, find_task
from llmtutor.evaluate.tasks.cut_lines import line_questions
from llmtutor.experiments.climbing import texts, train_rung, works
from llmtutor.experiments.kept import load_kept
from llmtutor.experiments.rungs import LAST, RUNGS
from llmtutor.experiments.study import Study, load_record
from llmtutor.experiments.texts import bytes_of
from llmtutor.interop.llama2c import load_stories260k
from llmtutor.interop.llama2c_tokenizer import BOS
from llmtutor.model.language_modelling import NGram

PUBLISHED = "stories260k"
UNIFORM = "uniform"
MODELS = (LAST, PUBLISHED, "trigram", "mlp", UNIFORM)
"""The model that is kept, a published one, two rungs that train in half a minute at most, and the
one that knows nothing. Other names of RUNGS may stand here too: a run trains its rung first."""
LINES = "lines"
N_ITEMS = {LINES: 200, "blimp": 20, "hellaswag": 200, "arc_easy": 200}
"""Questions of each benchmark, the first ones; of BLiMP, of each paradigm; LINES are cut lines of
the held-out works."""
PASSAGES, LENGTH = 100, 64
"""Of the held-out works, and tokens of the staircase that are predicted in each."""
OTHERWISE = {PUBLISHED: "arc_easy", LAST: LINES}
"""What a model is asked in other forms: what it guesses at, and what it does not."""
FORMS = ("as published", "no labels", "small letters", "1 example", "3 examples")


class Counted(nn.Module):
    """A model of counts as one that gives logits."""

    def __init__(self, counts: NGram) -> None:
        super().__init__()
        self.counts = counts
        self._of = lru_cache(maxsize=4096)(self._logits)

    def _logits(self, context: tuple[int, ...]) -> Float[Tensor, " vocab"]:
        return torch.from_numpy(np.log(self.counts.next_probs(context)))

    def forward(self, ids: Tensor) -> Float[Tensor, "batch seq vocab"]:
        """Logits of the token after each place."""
        width = max(self.counts.order - 1, 0)
        rows = [
            torch.stack(
                [self._of(tuple(row[max(0, i + 1 - width) : i + 1])) for i in range(len(row))]
            )
            for row in ids.tolist()
        ]
        return torch.stack(rows)


def examined(name: str) -> Subject:
    """A model of MODELS.

    Raises:
        FetchError: the published one is not here.
        ValueError: the study ``staircase`` has no learning rate for a rung.
    """
    if name == PUBLISHED:
        model, tokenizer = load_stories260k()
        return Subject(model, tokenizer.encode, BOS, begins=True)
    own = texts().tokenizer
    (start,) = own.encode("\n")
    if name == LAST:
        return Subject(load_kept()[0].eval(), own.encode, start)
    rung = RUNGS[name]
    rate = None if rung.count else load_record("staircase").plan["learning_rate"][name]
    trained, _ = train_rung(rung, rate, seed=0, times=rung.recipe.times)
    made = Counted(trained) if isinstance(trained, NGram) else trained
    return Subject(made, own.encode, start)


def asked(name: str) -> tuple[list[Item], tuple[str, ...]]:
    """The questions of a benchmark, and its metrics."""
    if name == LINES:
        by_name = works()
        held_out = [by_name[work] for work in HELD_OUT]
        return line_questions(held_out, N_ITEMS[name]), ALL_ANSWERS
    task = find_task(name)
    assert isinstance(task, Task)
    return task.items(limit=N_ITEMS[name]), task.metrics


def benchmark_run(*, model: str, form: str) -> dict[str, Any]:
    """Marks of a model on all benchmarks, or on one in another form; nats of passages.

    Raises:
        FetchError: a benchmark is not here.
    """
    subject = examined(model)
    found: dict[str, Any] = {}
    names = N_ITEMS if form == FORMS[0] else (OTHERWISE[model],)
    for name in names:
        items, metrics = asked(name)
        items = in_form(items, form)
        report = examine(subject, items, name=name, metrics=metrics, too_long="cut")
        found[name] = report.to_dict()
        for key in ("groups", "reliability"):
            if name != "blimp" or key == "reliability":
                found[name].pop(key, None)
        if "groups" in found[name]:
            groups = found[name]["groups"].items()
            found[name]["groups"] = {group: values["right"] for group, values in groups}
    if form == FORMS[0]:
        read = read_elsewhere if model == PUBLISHED else read_passages
        found |= read(subject)
    return found


def in_form(items: list[Item], form: str) -> list[Item]:
    """The same questions in another form; labels are those of ARC.

    Raises:
        ValueError: an unknown form.
    """
    if form == FORMS[0]:
        return items
    if form.endswith(("example", "examples")):
        return with_examples(items, int(form.split()[0]))
    if form == "small letters":
        return [
            replace(
                item,
                contexts=tuple(c.lower() for c in item.contexts),
                answers=tuple(a.lower() for a in item.answers),
            )
            for item in items
        ]
    if form == "no labels":
        labels = ("Question: ", "\nAnswer:")
        cut = [item.contexts[0].removeprefix(labels[0]).removesuffix(labels[1]) for item in items]
        return [
            replace(item, contexts=(context,) * len(item.answers))
            for item, context in zip(items, cut, strict=True)
        ]
    raise ValueError(f"expected a form among {', '.join(FORMS)}, got {form!r}")


def passages() -> list[list[int]]:
    """Passages that lie evenly over the held-out works, each behind the token before it."""
    held_out = texts().held_out
    starts = np.linspace(0, len(held_out) - LENGTH - 1, PASSAGES).astype(int)
    return [held_out[start : start + LENGTH + 1].tolist() for start in starts]


def read_passages(subject: Subject) -> dict[str, list[float]]:
    """Nats and bytes of the passages."""
    rows = passages()
    totals, _ = sums(subject.model, [(row[:1], row[1:]) for row in rows])
    sizes = [bytes_of(texts().tokenizer, np.array(row[1:])) for row in rows]
    return {"nats": [round(-total, 3) for total in totals.tolist()], "bytes": sizes}


def read_elsewhere(subject: Subject) -> dict[str, list[float]]:
    """The same of the same bytes, for a model with another tokenizer.

    Its tokens end elsewhere, so that a passage behind the token before it is the text of both less
    that token's text.
    """
    own = texts().tokenizer
    both = [(own.decode(row[:1]), own.decode(row)) for row in passages()]
    given = [subject.start]
    rows = [(given, subject.encode(text)) for pair in both for text in pair]
    totals, _ = sums(subject.model, rows)
    nats = (totals[::2] - totals[1::2]).tolist()
    sizes = [len(text.encode()) - len(before.encode()) for before, text in both]
    return {"nats": [round(value, 3) for value in nats], "bytes": sizes}


def _runs(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All models on all benchmarks, and two of them on one each in other forms."""
    as_published = [{"model": name, "form": FORMS[0]} for name in MODELS]
    forms = [{"model": name, "form": form} for name in OTHERWISE for form in FORMS[1:]]
    forms.remove({"model": LAST, "form": "no labels"})  # its questions have none
    return [*as_published[:3], *forms, *as_published[3:]]


BENCHMARKS = Study(
    name="benchmarks",
    description="Which benchmark tells the rungs of the staircase apart, and what a prompt does",
    runs=_runs,
    run=benchmark_run,
)
