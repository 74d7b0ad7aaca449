"""Texts that grow and go back, read by a model whose past is one sum and cannot be cut."""

from weakref import WeakSet

import numpy as np
import pytest
import torch
from torch import Tensor

from llmtutor.generate.generate import generate
from llmtutor.generate.reader import Reader, prompt_ids
from llmtutor.generate.sampling import Sampler
from llmtutor.generate.speculative import speculative
from llmtutor.layers.attention.cache import KVCache
from llmtutor.layers.basic import Embedding
from llmtutor.layers.mixer import Cache
from llmtutor.model.caches import Caches
from llmtutor.model.config import ModelConfig

PROMPTS = [[3, 1, 4, 1, 5, 9, 2], [6], [5, 3, 5]]
SAMPLERS = [Sampler(greedy=True), Sampler(temperature=2.0, repetition_penalty=1.2)]
REACH = pytest.mark.parametrize("reach", [0, 2], ids=["never back", "back by 2"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Kept(list):
    """A snapshot, counted for as long as somebody holds it."""

    __hash__ = object.__hash__


class RunningSums:
    """The sums after each of the last ``reach + 1`` tokens."""

    always_crops = False
    nbytes = 0

    def __init__(self, zero: Tensor, reach: int) -> None:
        self.zero, self.reach = zero, reach
        self.alive: WeakSet[Kept] = WeakSet()
        self.most_alive = 0
        self.reset()

    def reset(self) -> None:
        self.length, self.sums = 0, [self.zero]

    def add(self, x: Tensor) -> Tensor:
        sums = self.sums[-1][:, None] + x.cumsum(1)
        self.length += x.shape[1]
        self.sums = [*self.sums, *sums.unbind(1)][-self.reach - 1 :]
        return sums

    def can_crop(self, length: int) -> bool:
        return 0 <= self.length - length < len(self.sums)

    def crop(self, length: int) -> None:
        assert self.can_crop(length)
        self.sums = self.sums[: len(self.sums) - (self.length - length)]
        self.length = length

    def snapshot(self) -> Kept:
        kept = Kept([self.length, *self.sums])
        self.alive.add(kept)
        self.most_alive = max(self.most_alive, len(self.alive))
        return kept

    def restore(self, snapshot: Kept) -> None:
        self.length, *self.sums = snapshot


class Mean:
    """Logits from the mean of all tokens, less the last; whole numbers, so that sums are exact."""

    def __init__(self, reach: int = 0) -> None:
        sizes = {"n_layers": 1, "d_model": 4, "n_heads": 1, "d_ff": 4}
        self.config = ModelConfig.uniform(vocab_size=10, max_seq_len=40, **sizes)
        random = seeded(5)
        self.embedding = Embedding(10, 4).double()
        self.embedding.weight.data = torch.randint(-4, 5, (10, 4), generator=random).double()
        self.head = torch.randn(4, 10, generator=random, dtype=torch.float64)
        self.reach = reach
        self.made: list[RunningSums] = []
        self.read: list[int] = []

    def make_caches(self, batch: int, max_len: int | None, starts: Tensor | None) -> Caches:
        self.made.append(RunningSums(torch.zeros(batch, 4, dtype=torch.float64), self.reach))
        return Caches(self.made[-1:], batch, max_len or 40, starts)

    def __call__(
        self, ids: Tensor, *, cache: Caches | None = None, logits_to_keep: int | None = None
    ) -> Tensor:
        batch, seq = ids.shape
        self.read.append(seq)
        cache = cache or self.make_caches(batch, seq, torch.zeros(batch, dtype=torch.int64))
        starts = torch.zeros(batch) if cache.starts is None else cache.starts
        number = 1 + torch.arange(cache.length, cache.length + seq) - starts[:, None]
        x = self.embedding(ids)
        sums = cache.layers[0].add(x.where(number[..., None] > 0, 0.0))
        return ((4 * sums / number.clamp(min=1)[..., None] - x) @ self.head)[
            :, -(logits_to_keep or seq) :
        ]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["greedy", "sampled"])
def test_a_text_that_only_grows_needs_no_snapshot(sampler: Sampler) -> None:
    model = Mean()
    assert isinstance(RunningSums(torch.zeros(1, 4), 0), Cache)
    settings = {"max_new_tokens": 20, "sampler": sampler}
    fast = generate(model, PROMPTS, generator=seeded(), **settings)
    assert model.read == [7] + 19 * [1] and model.made[0].most_alive == 0
    assert fast == generate(model, PROMPTS, generator=seeded(), use_cache=False, **settings)
    assert min(len(set(row)) for row in fast) > 3


@REACH
@pytest.mark.parametrize("n_draft", [1, 3, 6])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=["greedy", "sampled"])
def test_refused_drafts_are_forgotten(sampler: Sampler, n_draft: int, reach: int) -> None:
    accepted = refused = 0
    for seed in range(5):
        model, draft = Mean(reach), Mean(reach)
        draft.head = draft.head + 0.3 * torch.randn(4, 10, generator=seeded(1), dtype=torch.float64)
        settings = {"max_new_tokens": 30, "sampler": sampler}
        fast, slow = (
            speculative(
                model,
                draft,
                PROMPTS[0][seed:],
                n_draft=n_draft,
                generator=seeded(seed),
                use_cache=cache,
                **settings,
            )
            for cache in (True, False)
        )
        assert fast == slow
        if sampler.greedy:
            assert [fast.ids] == generate(model, [PROMPTS[0][seed:]], **settings)
        for cache in (model.made[0], draft.made[0]):
            assert 0 < cache.most_alive <= n_draft + 1  # one more while the oldest makes room
        accepted, refused = accepted + fast.n_accepted, refused + fast.n_rejected
    assert accepted and refused


def test_behind_all_snapshots_the_text_is_read_from_its_beginning() -> None:
    model, ids = Mean(), torch.tensor([[*range(10)]])
    read = Reader(model, ids, 10, use_cache=True, n_snapshots=2)
    plain = Reader(model, ids, 10, use_cache=False)
    for length in (5, 7, 9, 10):
        read(ids[:, :length])
    other = torch.cat([ids[:, :2], ids[:, 2:].flip(1)], dim=1)
    model.read.clear()
    assert torch.equal(read(other, 8), plain(other, 8))
    assert model.read == [2, 8, 10]  # the last is the plain one's
    model.read.clear()
    assert torch.equal(read(ids, 8), plain(ids, 8))
    assert model.read == [8, 10]  # back at the snapshot of before


def test_keys_and_values_come_back_by_their_length() -> None:
    cache = KVCache(1, 1, 8, 2)
    rows = torch.arange(12.0).view(1, 1, 6, 2)
    cache.append(rows[:, :, :3], rows[:, :, :3])
    kept = cache.snapshot()
    cache.append(rows[:, :, :1], rows[:, :, :1])
    assert cache.always_crops and cache.can_crop(4) and not cache.can_crop(5)
    cache.restore(kept)
    keys, _ = cache.append(rows[:, :, 3:], rows[:, :, 3:])
    assert torch.equal(keys, rows)


def test_prompts_of_other_libraries_are_read(make_model) -> None:
    model = make_model()
    want = [[3, 1], [6, 2]]
    for prompts in (
        torch.tensor(want),
        np.array(want, dtype=np.uint16),
        [torch.tensor([3, 1]), np.array([6, 2])],
        [list(torch.tensor([3, 1])), tuple(np.array([6, 2]))],
    ):
        assert prompt_ids(model, prompts, np.int64(1)).tolist() == want
