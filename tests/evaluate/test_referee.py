"""The checklist catches each leak that is planted, and lets an honest model pass."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from llmtutor.evaluate.referee import (
    Answer,
    examine,
    held_out_is_unseen,
    is_causal,
    learns_one_batch,
    loss_by_position,
    loss_in_use,
    noise_batches,
    respects_noise,
    starts_at_log_vocab,
    targets_are_next,
)
from llmtutor.experiments.forensics.planted import PLANTED, Around
from llmtutor.experiments.forensics.specimen import Specimen

V, SEQ = 16, 8
SIZES = {"vocab_size": V, "seq_len": SEQ, "n_layers": 1, "n_heads": 2, "d_model": 32, "d_ff": 48}
REPAIRED = ("norm over channels", "residual kept", "gate multiplied", "own norms")


def specimen(*repairs: str) -> Specimen:
    torch.manual_seed(0)
    return Specimen(repairs, **SIZES)


@pytest.mark.parametrize("name", PLANTED)
def test_a_part_that_looks_ahead_is_caught_and_its_place_named(name: str) -> None:
    torch.manual_seed(0)
    answer = is_causal(Around(PLANTED[name](), V), V, SEQ)
    assert not answer.passed and "the output at position" in answer.found
    assert is_causal(Around(nn.Identity(), V), V, SEQ).passed


def test_the_published_block_fails_twice_and_the_repaired_one_passes_all() -> None:
    causal, first, one_batch, noise = examine(specimen(), V, seq_len=SEQ)
    assert not causal.passed and first.passed and one_batch.passed and not noise.passed
    assert all(answer.passed for answer in examine(specimen(*REPAIRED), V, seq_len=SEQ))


def test_an_examination_leaves_the_model_as_it_is() -> None:
    model = specimen(*REPAIRED)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    respects_noise(model, V, SEQ, steps=2)
    learns_one_batch(model, V, SEQ, steps=2)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_large_logits_and_a_softmax_too_many_are_caught_by_different_questions() -> None:
    loud, squashed = specimen(*REPAIRED), specimen(*REPAIRED)
    with torch.no_grad():
        loud.output.weight.mul_(20)
    assert not starts_at_log_vocab(loud, V, SEQ).passed
    assert learns_one_batch(loud, V, SEQ).passed
    twice = nn.Sequential(squashed, nn.Softmax(-1))
    assert starts_at_log_vocab(twice, V, SEQ).passed  # all logits lie between 0 and 1
    answer = learns_one_batch(twice, V, SEQ)
    assert not answer.passed
    # By hand: a logit of 1 against V − 1 of 0 is the best it can do.
    best = -F.log_softmax(torch.eye(V)[0], -1)[0].item()
    assert float(answer.found.split()[3]) >= round(best, 2) == 1.87


def test_targets_that_are_not_shifted_are_seen_in_one_batch() -> None:
    (batch,) = noise_batches(V, SEQ, steps=1)
    assert targets_are_next(batch).passed
    inputs, _ = batch
    assert targets_are_next((inputs, inputs)) == Answer(
        "Are the targets the next inputs?", False, "the inputs themselves"
    )
    assert targets_are_next((inputs, inputs.roll(1, 1))).found == "others"


def test_a_random_split_of_overlapping_windows_is_caught() -> None:
    ids = np.random.default_rng(0).integers(65, size=2000)
    windows = np.lib.stride_tricks.sliding_window_view(ids, SEQ)
    shuffled = np.random.default_rng(1).permutation(windows)
    cut = len(windows) * 9 // 10
    mixed = held_out_is_unseen(shuffled[:cut], shuffled[cut:])
    assert not mixed.passed and mixed.found.startswith("100%")
    assert held_out_is_unseen(windows[: cut - SEQ], windows[cut:]).passed
    with pytest.raises(ValueError, match="windows of one length"):
        held_out_is_unseen(windows[:5], windows[:5, :3])


def test_both_losses_of_a_causal_model_are_one_and_those_of_a_leaky_one_are_two() -> None:
    batches = list(noise_batches(V, SEQ, steps=2))
    honest, leaky = specimen(*REPAIRED), specimen()
    whole = loss_by_position(honest, batches)
    assert len(whole) == SEQ
    assert whole.mean().item() == pytest.approx(loss_in_use(honest, batches), abs=1e-5)
    gap = loss_by_position(leaky, batches) - loss_in_use(leaky, batches)
    assert abs(gap.mean().item()) > 1e-4
    for measure in (loss_by_position, loss_in_use):
        with pytest.raises(ValueError, match="no batch"):
            measure(honest, [])
