"""A run in the middle: measured on all of the validation text, and brought back to the bit."""

import numpy as np
import pytest
import torch

from llmtutor.data.batches import sequential_batches
from llmtutor.evaluate.perplexity import evaluate_loss
from llmtutor.train.distributed import World
from llmtutor.train.loop import train
from llmtutor.train.state import load_latest
from llmtutor.train.training import save_training, setup, validate

ALONE = World()


def test_validation_is_every_token_of_the_text_once(tiny) -> None:
    training = setup(tiny(eval_tokens=None), ALONE)
    ids = training.text.valid.ids
    whole = evaluate_loss(training.model, sequential_batches(ids, 64, 16))
    assert whole.n_tokens == len(ids) - 1
    assert validate(training) == pytest.approx(whole.nats_per_token, abs=1e-6)
    part = evaluate_loss(training.model, sequential_batches(ids[:101], 64, 16))
    short = setup(tiny(eval_tokens=100), ALONE)
    assert validate(short) == pytest.approx(part.nats_per_token, abs=1e-6)


def test_ranks_share_the_validation_text_and_agree(tiny, monkeypatch) -> None:
    """Two ranks, one after the other: their totals add up to the whole."""
    alone = validate(setup(tiny(), ALONE))
    totals: dict[int, list[float]] = {0: [], 1: []}
    for rank in (0, 1):
        monkeypatch.setattr(
            "llmtutor.train.training.mean", lambda v, w, rank=rank: totals[rank].append(v) or 1.0
        )
        training = setup(tiny(), ALONE)
        training.world = World(rank, 2)
        validate(training)
    nats, tokens = (totals[0][i] + totals[1][i] for i in (0, 1))
    assert tokens == 100
    assert nats / tokens == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_a_saved_run_is_set_up_again_to_the_bit(tiny, optimizer) -> None:
    config = tiny(optimizer=optimizer, steps=3)
    end = train(config, quiet=True)
    again = setup(config, ALONE, load_latest(save_training(end).parent))
    assert (again.step, again.n_tokens, again.valid_loss) == (3, 192, end.valid_loss)
    for one, two in zip(end.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, two)
    before, after = end.optimizer.state_dict(), again.optimizer.state_dict()
    assert [dict(g) for g in before["param_groups"]] == [dict(g) for g in after["param_groups"]]
    assert list(before["state"]) == list(after["state"])
    for key, entry in before["state"].items():
        for name, value in entry.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(after["state"][key][name]))


def test_the_seed_decides_the_first_weights(tiny) -> None:
    def first(seed: int) -> np.ndarray:
        torch.manual_seed(99)
        return next(setup(tiny(seed=seed), ALONE).model.parameters()).detach().numpy()

    assert (first(1) == first(1)).all() and (first(1) != first(2)).any()


def test_a_checkpoint_of_another_tokenizer_is_refused(tiny) -> None:
    config = tiny(steps=1)
    train(config, quiet=True)
    state = load_latest(save_training(setup(config, ALONE)).parent)
    state.tokenizer = "0" * 64
    with pytest.raises(ValueError, match="trained with tokenizer 000000000000…"):
        setup(config, ALONE, state)
