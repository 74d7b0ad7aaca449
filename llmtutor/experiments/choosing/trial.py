"""Chapter 20, comparison: one run of an option, from its settings to what is kept of it.

Every option is trained on the same batches in the same order: a batch is a function of the seed and
the step, so two options with one seed are a pair. Learning rates are chosen on works that no run is
trained on (``tuning``), and the held-out works are read by the runs that are compared alone.

The corpus is Shakespeare, which every reader has. Minimal pairs are no reason to take another: in a
pilot the baseline of the smallest size found the good sentence of a pair in 49 % of 6,700 pairs,
trained on Shakespeare or on the stories of ``tinystories-sample``. At this size both guess.
"""

import zipfile
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from llmtutor.checks import check_name
from llmtutor.data.batches import batch_at
from llmtutor.data.corpora import DOCUMENT_BREAK, load_corpus
from llmtutor.data.places import mirror_dir
from llmtutor.evaluate.pairs import Pair, PairScore, parse_pair, score_pairs, total_score
from llmtutor.experiments.choosing.defects import zero_first_head
from llmtutor.experiments.choosing.options import (
    OPTIONS,
    SIZES,
    Size,
    build_option,
    option_steps,
)
from llmtutor.experiments.curve import (
    LOST,
    Curve,
    in_means,
    loss_on,
    rounded,
    spread_windows,
    train_curve,
)
from llmtutor.experiments.texts import Texts, bytes_of, in_parts
from llmtutor.experiments.training import schedule
from llmtutor.model.accounting import backward_flops, forward_flops, parameters
from llmtutor.model.losses import Loss, batch_losses
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer import BPETokenizer

CORPUS = "shakespeare"
TUNING_OF = 20
"""Of so many training documents the middle one is for tuning alone."""
FINAL_TOKENS = 131_072
"""On which a final loss is taken, the same for every run."""
MARK_TOKENS = 16_384
"""On which the loss is taken on the way."""
MARKS = (0.125, 0.25, 0.5)
"""Parts of the steps after which it is."""
POINTS = 25
"""Of the curve of training losses, each the mean of as many steps."""
PAIRS_OF_EACH = 30
"""Pairs of each paradigm of BLiMP, the first in its file."""


@cache
def texts(vocab_size: int) -> Texts:
    """The corpus of the study, in byte pairs that were learned from the works to train on."""
    corpus = load_corpus(CORPUS)
    return parted(corpus.train_documents, corpus.valid_documents, vocab_size)


def parted(documents: list[str], held_out: list[str], vocab_size: int) -> Texts:
    """Documents in three parts: those to train on, every twentieth to tune on, the held-out."""
    tuning = documents[TUNING_OF // 2 :: TUNING_OF]
    train = [text for i, text in enumerate(documents) if i % TUNING_OF != TUNING_OF // 2]
    return in_parts(train, tuning, held_out, vocab_size)


def train_option(
    option: str,
    size: Size,
    lr: float,
    seed: int,
    text: Texts,
    *,
    loss: Loss = batch_losses,
    device: str = "cpu",
) -> tuple[Transformer, Curve]:
    """The model of an option, trained on a text by ``loss``, and its curve.

    Raises:
        ValueError: an unknown option.
    """
    model, steps = build_option(option, size, seed), option_steps(option, size)
    shape = size.batch_size, size.seq_len
    curve = train_curve(
        model,
        (batch_at(text.train, *shape, seed=seed, step=step) for step in range(steps)),
        steps=steps,
        lr=lr,
        schedule=schedule(steps),
        optimizer=OPTIONS[option].optimizer,
        held_out=partial(spread_windows, text.held_out, MARK_TOKENS // size.seq_len, size.seq_len),
        marks={round(part * steps) for part in MARKS},
        loss=loss,
        device=device,
    )
    if OPTIONS[option].zeroed_head == "evaluation":
        zero_first_head(model)
    return model, curve


def tune_option(*, size: str, option: str, lr: float, seed: int) -> dict[str, Any]:
    """An option at one learning rate: the loss on the works to tune on alone.

    Raises:
        ValueError: an unknown size or option.
    """
    chosen = SIZES[check_name("size", size, SIZES)]
    text = texts(chosen.vocab_size)
    model, curve = train_option(option, chosen, lr, seed, text)
    if curve.diverged:
        return dict(LOST)
    return final_loss(model, chosen, text.tokenizer, text.tuning)


def measure_option(*, size: str, option: str, lr: float, seed: int) -> dict[str, Any]:
    """An option as it is compared: sizes, operations, curve, held-out loss, minimal pairs.

    ``pairs`` are None where BLiMP is not at hand. A run that diverges has no final loss.

    Raises:
        ValueError: an unknown size or option.
    """
    chosen = SIZES[check_name("size", size, SIZES)]
    text = texts(chosen.vocab_size)
    model, curve = train_option(option, chosen, lr, seed, text)
    final = LOST if curve.diverged else final_loss(model, chosen, text.tokenizer, text.held_out)
    pairs = None if curve.diverged else minimal_pairs(model, text.tokenizer)
    return {
        **counts(model, chosen, option_steps(option, chosen)),
        **final,
        "pairs": None if pairs is None else {"right": pairs.right, "n": pairs.n},
        **curves(curve),
    }


def counts(model: Transformer, size: Size, steps: int) -> dict[str, int]:
    """Parameters, tokens and operations of the training run, by arithmetic."""
    config, shape = model.config, (size.batch_size, size.seq_len)
    found = parameters(config)
    step = forward_flops(config, *shape) + backward_flops(config, *shape)
    return {
        "n_params": found.total,
        "n_active": found.active,
        "steps": steps,
        "n_tokens": steps * size.batch_size * size.seq_len,
        "train_flops": steps * step,
    }


def final_loss(
    model: Transformer, size: Size, tokenizer: BPETokenizer, ids: np.ndarray
) -> dict[str, float]:
    """On FINAL_TOKENS of a text, in nats per token and in bits per byte of just these tokens."""
    n = min(FINAL_TOKENS, len(ids) - 1) // size.seq_len
    report = loss_on(model, spread_windows(ids, n, size.seq_len))
    targets = torch.cat([targets for _, targets in spread_windows(ids, n, size.seq_len)])
    return rounded(report, bytes_of(tokenizer, targets.numpy()))


def curves(curve: Curve) -> dict[str, dict[str, list[float]]]:
    """The training loss in POINTS means, and the held-out loss on the way."""
    losses = [round(loss, 4) for loss in curve.marks.values()]
    return {
        "curve": in_means(curve.losses, POINTS),
        "valid": {"step": list(curve.marks), "loss": losses},
    }


def minimal_pairs(model: torch.nn.Module, tokenizer: BPETokenizer) -> PairScore | None:
    """On the first pairs of all paradigms of BLiMP; None where they are not at hand."""
    pairs, start = blimp(PAIRS_OF_EACH), tokenizer.encode(DOCUMENT_BREAK)
    if not pairs:
        return None
    return total_score(score_pairs(model, tokenizer.encode, pairs, start=start).values())


@cache
def blimp(of_each: int) -> tuple[Pair, ...]:
    """The first pairs of each paradigm, from ``blimp/BLiMP.zip`` of the mirror; none without it."""
    mirror = mirror_dir()
    path = None if mirror is None else mirror / "blimp" / "BLiMP.zip"
    if path is None or not path.is_file():
        return ()
    with zipfile.ZipFile(path) as archive:
        names = sorted(n for n in archive.namelist() if n.startswith("data/") and "jsonl" in n)
        files = {name: archive.read(name).decode().splitlines()[:of_each] for name in names}
    return tuple(
        parse_pair(line, f"{path}, {name}, line {i}")
        for name, lines in files.items()
        for i, line in enumerate(lines, 1)
    )
