"""Chapter 08, feed-forward: three bends, each with and without a gate, at equal parameters.

A model of one feed-forward layer reads the last CONTEXT characters and guesses the next: so little
stands around the layer that runs to the end are cheap. Rates are chosen on one half of the held-out
works by a seed of their own, and what is compared is the loss on the other half.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.checks import check_name
from llmtutor.evaluate.compare import Comparison, compare
from llmtutor.evaluate.perplexity import LossReport
from llmtutor.experiments.curve import LOST, Curve, in_means, loss_on, rounded, train_curve
from llmtutor.experiments.staircase import best_rate
from llmtutor.experiments.study import Record, Study, load_record, record_path
from llmtutor.experiments.training import schedule, tokens
from llmtutor.layers.basic import Embedding, Linear
from llmtutor.layers.ffn import MLP, GatedMLP, swiglu_width
from llmtutor.model.language_modelling import NGram
from llmtutor.model.losses import Batch

CONTEXT, D_MODEL = 4, 48
PLAIN_WIDTH, GATED_WIDTH = 4 * D_MODEL, swiglu_width(D_MODEL, 8)
STEPS, BATCH = 5000, 256
LONGER = 3
"""Times the steps, for two of the forms: what training on would still bring."""
RATES = (0.005, 0.01, 0.02, 0.04)
TUNING_SEED, SEEDS, LONGER_SEEDS = 100, 5, 2
POINTS = 40
"""Of a curve, each the mean of as many steps."""
STUDY, RATES_STUDY = "feed-forward", "feed-forward-rates"

PLAIN = {"ReLU": "relu", "GELU": "gelu", "SiLU": "silu"}
GATED = {"ReGLU": "relu", "GEGLU": "gelu", "SwiGLU": "silu"}
"""In the order of PLAIN: the same bend, for the gate."""
FORMS: Mapping[str, Callable[[], nn.Module]] = {
    **{name: partial(MLP, D_MODEL, PLAIN_WIDTH, bend) for name, bend in PLAIN.items()},
    **{name: partial(GatedMLP, D_MODEL, GATED_WIDTH, bend) for name, bend in GATED.items()},
}
LONGEST = ("GELU", "SwiGLU")
COUNTS = {"bigram": 2, "trigram": 3, "4-gram": 4}
"""Models that count, by their order: what the forms have to beat."""


class WindowModel(nn.Module):
    """The last characters (batch, CONTEXT) → logits of the next (batch, 1, vocab).

    Their embeddings stand side by side; to these D_MODEL numbers a layer adds what it finds. The
    layer is made last: with one seed, models of all forms begin with the same embedding and head.
    """

    def __init__(self, vocab_size: int, make_layer: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.embed = Embedding(vocab_size, D_MODEL // CONTEXT)
        self.head = Linear(D_MODEL, vocab_size)
        self.layer = make_layer()

    def forward(self, ids: Int[Tensor, "batch context"]) -> Float[Tensor, "batch 1 vocab"]:
        """One place to guess for each window."""
        x = self.embed(ids).flatten(-2)
        logits: Tensor = self.head(x + self.layer(x))
        return logits[:, None]


def windows(ids: Tensor, starts: Tensor) -> Batch:
    """CONTEXT characters from each of ``starts`` (batch,), and the one that follows (batch, 1)."""
    rows = ids[starts[:, None] + torch.arange(CONTEXT + 1)]
    return rows[:, :CONTEXT], rows[:, CONTEXT:]


def random_windows(ids: Tensor, seed: int) -> Iterator[Batch]:
    """Without end, BATCH at a time: the same for all forms of a seed."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield windows(ids, torch.randint(len(ids) - CONTEXT, (BATCH,), generator=generator))


def all_windows(ids: Tensor) -> Iterator[Batch]:
    """Every window of a text once."""
    for starts in torch.arange(len(ids) - CONTEXT).split(8192):
        yield windows(ids, starts)


@functools.cache
def parts() -> tuple[Tensor, Tensor, Tensor, int]:
    """Characters to train on, to tune on and to compare on, and how many different ones."""
    of_train, valid, vocab_size = tokens()
    half = len(valid) // 2
    train, tuning, held_out = (
        torch.from_numpy(some.astype(np.int64)) for some in (of_train, valid[:half], valid[half:])
    )
    return train, tuning, held_out, vocab_size


def train_form(form: str, lr: float, seed: int, steps: int) -> tuple[WindowModel, Curve]:
    """A model with this layer, and the losses of its training.

    Raises:
        ValueError: an unknown form.
    """
    make_layer = FORMS[check_name("form", form, FORMS)]
    train, _, _, vocab_size = parts()
    torch.manual_seed(seed)
    model = WindowModel(vocab_size, make_layer)
    batches = random_windows(train, seed)
    return model, train_curve(model, batches, steps=steps, lr=lr, schedule=schedule(steps))


def loss_of(model: WindowModel, ids: Tensor) -> dict[str, float]:
    """In nats a character and bits a byte; a character of this corpus is one byte."""
    return rounded(loss_on(model, all_windows(ids)), len(ids) - CONTEXT)


def tune_run(*, form: str, lr: float, seed: int) -> dict[str, Any]:
    """A form at one rate: the loss on the half to tune on."""
    model, curve = train_form(form, lr, seed, STEPS)
    return dict(LOST) if curve.diverged else loss_of(model, parts()[1])


def form_run(*, form: str, lr: float | None, seed: int, times: int = 1) -> dict[str, Any]:
    """A form as it is compared, or a model that counts: its loss on the other half."""
    train, _, held_out, vocab_size = parts()
    if form in COUNTS:
        counted = NGram(COUNTS[form], vocab_size).fit(train.numpy())
        report = LossReport(counted.loss(held_out.numpy()), len(held_out) - 1)
        return rounded(report, report.n_tokens)
    assert lr is not None
    model, curve = train_form(form, lr, seed, times * STEPS)
    found = dict(LOST) if curve.diverged else loss_of(model, held_out)
    n_params = sum(p.numel() for p in model.parameters())
    return {**found, "n_params": n_params, "curve": in_means(curve.losses, POINTS)}


def tried(record: Record, form: str) -> dict[float, float]:
    """Losses by learning rate; one at which training diverged is infinite."""
    runs = [run for run in record.runs if run["settings"]["form"] == form]
    losses = {run["settings"]["lr"]: run["result"]["bits_per_byte"] for run in runs}
    return {lr: np.inf if loss is None else loss for lr, loss in sorted(losses.items())}


def losses(record: Record, form: str, times: int = 1) -> dict[int, float]:
    """Bits per byte by seed."""
    return {
        run["settings"]["seed"]: run["result"]["bits_per_byte"]
        for run in record.runs
        if run["settings"]["form"] == form and run["settings"].get("times", 1) == times
    }


def paired(record: Record) -> dict[str, dict[int, float]]:
    """Bits per byte of each form by seed, for the seeds that all forms have by now."""
    found = {form: losses(record, form) for form in FORMS}
    whole = sorted(set.intersection(*(set(by_seed) for by_seed in found.values())))
    return {form: {seed: by_seed[seed] for seed in whole} for form, by_seed in found.items()}


def gaps(record: Record) -> dict[str, Comparison]:
    """Each gated form against the plain one of its bend, and the bends against ReLU.

    None while there are not three seeds that all forms have: two say next to nothing.
    """
    found = paired(record)
    if len(found["ReLU"]) < 3:
        return {}
    pairs = list(zip(GATED, PLAIN, strict=True)) + [(bend, "ReLU") for bend in ("GELU", "SiLU")]
    return {f"{a} − {b}": compare(found[a], found[b]) for a, b in pairs}


def _plan_rates(written: Mapping[str, Any]) -> dict[str, Any]:
    """The rates of the table, and one more for a form whose best is an end of what was tried."""
    planned = written.get("rates", {})
    new = {form: dict.fromkeys(map(str, RATES), "in the table") for form in FORMS}
    new = {form: rates for form, rates in new.items() if form not in planned}
    record = load_record(RATES_STUDY) if planned else None
    for form, rates in planned.items():
        found = tried(record, form) if record is not None else {}
        if len(found) == len(rates) and best_rate(found) is None:
            low = min(found, key=found.__getitem__) == min(found)
            more = min(found) / 2 if low else 2 * max(found)
            new[form] = {str(round(more, 6)): "the best so far was the lowest or the highest"}
    return {"rates": new} if new else {}


def _plan(written: Mapping[str, Any]) -> dict[str, Any]:
    """The rates that the search found by now."""
    if not record_path(RATES_STUDY).is_file():
        return {}
    record, known = load_record(RATES_STUDY), written.get("learning_rate", {})
    new = {}
    for form in FORMS:
        found = tried(record, form)
        whole = len(found) == len(record.plan["rates"].get(form, ())) > 0
        if whole and form not in known and (lr := best_rate(found)):
            new[form] = lr
    return {"learning_rate": new} if new else {}


def _runs(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Counts, then all forms seed by seed, then the longer ones."""
    rates = plan["learning_rate"]
    counts = [{"form": name, "lr": None, "seed": 0} for name in COUNTS]
    forms = [
        {"form": form, "lr": rates[form], "seed": seed} for seed in range(SEEDS) for form in FORMS
    ]
    longer = [
        {"form": form, "lr": rates[form], "seed": seed, "times": LONGER}
        for seed in range(LONGER_SEEDS)
        for form in LONGEST
    ]
    return counts + forms + longer


FEED_FORWARD = (
    Study(
        name=RATES_STUDY,
        description="Six feed-forward layers of equal size in a small model: their learning rates",
        plan=_plan_rates,
        runs=lambda plan: [
            {"form": form, "lr": float(lr), "seed": TUNING_SEED}
            for form in FORMS
            for lr in plan["rates"][form]
        ],
        run=tune_run,
    ),
    Study(
        name=STUDY,
        description="Six feed-forward layers of equal size in a small model: five paired seeds",
        plan=_plan,
        runs=_runs,
        run=form_run,
    ),
)
