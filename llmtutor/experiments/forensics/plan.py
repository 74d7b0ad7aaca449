"""Chapter 24, forensics: which runs there are, and in which order.

First the specimen in a small copy, as published and after each repair, on text and on noise, with
three seeds. Then what batch sizes do to a comparison of model sizes. Last the published size.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmtutor.experiments.forensics.specimen import REPAIRS
from llmtutor.experiments.forensics.trial import specimen_run
from llmtutor.experiments.making import Settings
from llmtutor.experiments.study import Study
from llmtutor.experiments.training import SEQ_LEN, train_run

SEEDS = 3
BATCH_STEPS = 200
RATES = {32: 0.019, 64: 0.009}
"""Of the study ``sizes``, by width, rounded."""
BATCHES = ((32, 64), (64, 8), (64, 64))
"""Width and batch: the small model, the large one with what fitted, and with as much text."""


def runs(plan: Mapping[str, Any]) -> Sequence[Settings]:
    """The most telling first: a study that is stopped has whole seeds."""
    return [*_specimens(), *_batches(), *_published()]


def _specimens() -> Iterator[Settings]:
    text = "tinyshakespeare"
    groups = [(text, repairs, "attention") for repairs in (0, 1, len(REPAIRS))]
    groups += [(text, repairs, "attention") for repairs in range(2, len(REPAIRS))]
    groups += [("noise", 0, "attention"), (text, 0, "differential"), (text, 1, "differential")]
    groups += [("noise", 1, "attention")]
    for text, repairs, mixer in groups:
        for seed in range(SEEDS):
            yield specimen("small", text, repairs, mixer, seed)


def _batches() -> Iterator[Settings]:
    for seed in range(SEEDS):
        for d_model, batch_size in BATCHES:
            yield {"part": "batches", "d_model": d_model, "batch_size": batch_size, "seed": seed}


def _published() -> Iterator[Settings]:
    for mixer, repairs in (("attention", 0), ("differential", 0), ("attention", 1)):
        yield specimen("published", "tinyshakespeare", repairs, mixer, 0)


def specimen(scale: str, text: str, repairs: int, mixer: str, seed: int) -> Settings:
    """Settings of one run of the specimen."""
    who = {"part": "specimen", "scale": scale, "text": text}
    return {**who, "repairs": repairs, "mixer": mixer, "seed": seed}


def forensics_run(*, part: str, device: str = "cpu", **settings: Any) -> dict[str, Any]:
    """A run of either part."""
    if part == "specimen":
        return specimen_run(device=device, **settings)
    n_tokens = BATCH_STEPS * settings["batch_size"] * SEQ_LEN
    lr = RATES[settings["d_model"]]
    found = train_run(n_tokens=n_tokens, lr=lr, device=device, **settings)
    return {name: value for name, value in found.items() if name != "curve"}


FORENSICS = Study(
    name="forensics",
    description=(
        "A published model that saw its answers, as it was and repaired; batches confounded"
    ),
    runs=runs,
    run=forensics_run,
)
