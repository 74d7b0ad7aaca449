"""The model so far, every chapter from 03 on: a rung trained, measured and made to write.

Every rung reads byte pairs of one tokenizer, VOCAB_SIZE of them, and is measured in bits per byte
on the held-out works. Chapters 03 to 09 show characters, which are easier to look at, but in
training they cost too much. In a pilot the four blocks of rung "modern" read 409,600 tokens each
way, so for about the same FLOPs: characters came to 2.79 bits per byte on TUNING, 1,024 byte pairs
to 2.38. Counts gain as well: the three tokens of a trigram are some seven characters, which a small
network finds hard to beat.

A learning rate is chosen on one whole work, TUNING, that no rung is trained on, and by a seed of
its own. The held-out works are read once for each run, at its end.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from llmtutor.checks import check_name
from llmtutor.data.batches import batch_at
from llmtutor.data.shakespeare import HELD_OUT, Shakespeare
from llmtutor.evaluate.perplexity import LossReport
from llmtutor.evaluate.sliding import sliding_loss
from llmtutor.experiments.curve import LOST, Curve, in_means, rounded, train_curve
from llmtutor.experiments.kept import keep, load_kept, write_card
from llmtutor.experiments.rungs import LAST, RUNGS, Rung
from llmtutor.experiments.texts import Texts, bytes_of, in_parts
from llmtutor.generate.sampling import Sampler
from llmtutor.model.language_modelling import NGram
from llmtutor.model.transformer import Transformer
from llmtutor.optim import make_schedule

VOCAB_SIZE = 1024
TUNING = "twelfth_night"
PROMPT = "\n\nKING.\n"
SAMPLE_LENGTH, SAMPLE_SEED = 300, 0
SAMPLER = Sampler(temperature=0.8)
POINTS = 50
"""Of a curve, each the mean of as many steps."""


def works() -> dict[str, str]:
    """Every work by its name."""
    return {path.stem: path.read_bytes().decode("ascii") for path in Shakespeare().fetch()}


@cache
def texts() -> Texts:
    """Training is on all works but the held-out ones and the one to tune on."""
    by_name = works()
    held_out = [by_name[name] for name in HELD_OUT]
    train = [text for name, text in by_name.items() if name not in (*HELD_OUT, TUNING)]
    return in_parts(train, [by_name[TUNING]], held_out, VOCAB_SIZE)


def train_rung(
    rung: Rung, lr: float | None, seed: int, times: int
) -> tuple[NGram | nn.Module, Curve]:
    """The model of a rung, having seen ``times`` as many bytes as the training works have."""
    text = texts()
    if rung.count is not None:
        return rung.count(text.tokenizer.vocab_size).fit(text.train), Curve()
    assert rung.build is not None and lr is not None
    recipe = rung.recipe
    steps = max(1, round(times * len(text.train) / (recipe.batch_size * recipe.seq_len)))
    schedule = make_schedule(
        recipe.schedule,
        steps=steps,
        warmup=round(recipe.warmup * steps),
        decay=round(recipe.decay * steps),
        final=recipe.final,
    )
    torch.manual_seed(seed)
    model = rung.build(text.tokenizer.vocab_size)
    shape = recipe.batch_size, recipe.seq_len
    batches = (batch_at(text.train, *shape, seed=seed, step=step) for step in range(steps))
    return model, train_curve(
        model, batches, steps=steps, lr=lr, schedule=schedule, optimizer=recipe.optimizer
    )


def measure(model: NGram | nn.Module, context: int, ids: np.ndarray) -> dict[str, float]:
    """Loss on a text, every token but the first: in nats per token, and in bits per byte."""
    if isinstance(model, NGram):
        report = LossReport(model.loss(ids), len(ids) - 1)
    else:
        report = sliding_loss(model, torch.from_numpy(ids.astype(np.int64)), context)
    return rounded(report, bytes_of(texts().tokenizer, ids[1:]))


@torch.inference_mode()
def write(model: NGram | nn.Module, context: int) -> str:
    """What the model writes after PROMPT, SAMPLE_LENGTH characters of it."""
    tokenizer = texts().tokenizer
    prompt = tokenizer.encode(PROMPT)
    ids, text = list(prompt), ""
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    while len(text) < SAMPLE_LENGTH:
        row = torch.tensor([ids[-context:]])
        if isinstance(model, NGram):
            logits = torch.from_numpy(np.log(model.next_probs(ids)))[None]
        else:
            logits = model(row)[:, -1]
        ids.append(int(SAMPLER.choose(logits, row, generator)))
        text = tokenizer.decode(ids[len(prompt) :])
    return text[:SAMPLE_LENGTH]


def tune_run(*, rung: str, lr: float, seed: int) -> dict[str, Any]:
    """A rung at one learning rate, on as many bytes as the training works have; the tuning loss.

    Raises:
        ValueError: an unknown rung.
    """
    chosen = RUNGS[check_name("rung", rung, RUNGS)]
    model, curve = train_rung(chosen, lr, seed, times=1)
    if curve.diverged:
        return dict(LOST)
    return measure(model, chosen.recipe.seq_len, texts().tuning)


def staircase_run(*, rung: str, lr: float | None, seed: int) -> dict[str, Any]:
    """A rung as it stands in the staircase: sizes, curve, held-out loss, and what it writes.

    Raises:
        ValueError: an unknown rung.
    """
    chosen = RUNGS[check_name("rung", rung, RUNGS)]
    times, context = chosen.recipe.times, chosen.recipe.seq_len
    model, curve = train_rung(chosen, lr, seed, times)
    if curve.diverged:
        return dict(LOST)
    result = {
        "n_params": size(model),
        "bytes_seen": times * texts().n_bytes,
        "steps": len(curve.losses),
        **measure(model, context, texts().held_out),
        "curve": in_means(curve.losses, POINTS),
        "sample": write(model, context),
    }
    if rung == LAST and seed == 0 and isinstance(model, Transformer):
        result["int8_bits_per_byte"] = _kept(model, context, {"rung": rung, "lr": lr, **result})
    return result


def _kept(model: Transformer, context: int, found: dict[str, Any]) -> float:
    """Keep the model with its card; its held-out loss as it is kept."""
    keep(model, texts().tokenizer)
    again, _ = load_kept()
    loss = measure(again, context, texts().held_out)["bits_per_byte"]
    blocks = f"{model.config.n_layers} blocks of width {model.config.d_model}"
    write_card(
        {
            "What": f"{found['n_params']:,} parameters, {blocks}, context {context}; {VOCAB_SIZE} "
            "byte pairs",
            "Data": f"Shakespeare's works, public domain, without {', '.join(HELD_OUT)} (held out) "
            f"and {TUNING} (to tune on); {found['bytes_seen']:,} bytes seen",
            "Recipe": f"rung `{found['rung']}` of the study `staircase`, seed 0: {found['steps']} "
            f"steps, peak learning rate {found['lr']}",
            "Loss": f"{found['bits_per_byte']:.3f} bits per byte on the held-out works, "
            f"{loss:.3f} in int8",
            "Format": "int8 with a scale for each row, read by `llmtutor.interop.int8`",
            "Licence": "that of the code (see LICENSE)",
        }
    )
    return loss


def size(model: NGram | nn.Module) -> int:
    """Parameters, or numbers that were counted."""
    if isinstance(model, NGram):
        return model.n_counts
    return sum(p.numel() for p in model.parameters())
