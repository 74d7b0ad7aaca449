"""A past of fixed size: kept, restored, and never mixed with padding."""

import pytest
import torch

from llmtutor.layers.mixer import Cache
from llmtutor.layers.recurrent.state import StateCache


def cache(**options) -> StateCache:
    return StateCache(9, state=torch.zeros(2, 3), tail=torch.ones(2, 1), **options)


def test_it_keeps_goes_back_and_starts_again() -> None:
    past = cache()
    assert isinstance(past, Cache) and past.nbytes == 4 * 8
    past.keep(2, state=torch.full((2, 3), 5.0))
    saved = past.snapshot()
    past.keep(4, state=torch.full((2, 3), 7.0), tail=torch.zeros(2, 1))
    assert past.length == 6 and past.nbytes == 4 * 8
    past.restore(saved)
    assert past.length == 2 and past["state"][0, 0] == 5 and past["tail"][0] == 1
    past.keep(1, tail=torch.zeros(2, 1))
    past.reset()
    assert past.length == 0 and not past["state"].any() and past["tail"].all()


def test_it_goes_back_to_snapshots_alone() -> None:
    past = cache()
    past.keep(2, state=torch.ones(2, 3))
    past.crop(2)
    with pytest.raises(ValueError, match=r"cannot go back from 2 to 1 tokens.*restore a snapshot"):
        past.crop(1)


def test_it_says_which_tokens_are_real() -> None:
    assert cache().real(3) is None
    past = cache(starts=torch.tensor([0, 2]))
    assert past.real(3)[..., 0].tolist() == [[1, 1, 1], [0, 0, 1]]
    past.keep(3)
    assert past.real(1)[..., 0].tolist() == [[1], [1]]


def test_what_does_not_fit_is_refused_and_nothing_is_written() -> None:
    past = cache()
    with pytest.raises(ValueError, match=r"not state \(1, 3\); make one with"):
        past.keep(1, tail=torch.zeros(2, 1), state=torch.ones(1, 3))
    assert past.length == 0 and past["tail"].all()
    with pytest.raises(ValueError, match="10 tokens more than the 0"):
        past.real(10)
    with pytest.raises(ValueError, match="starts"):
        cache(starts=torch.tensor([0, 9]))
