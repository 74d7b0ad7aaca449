"""Keys and values in few bits: close, small, the same in one piece and token by token."""

import doctest

import pytest
import torch

from llmtutor.interop.quantize import Integers, cache, nearest
from llmtutor.interop.quantize.cache import QuantizedKVCache, quantized_caches
from llmtutor.model.presets import build, preset

SIZES = {"vocab_size": 19, "max_seq_len": 32, "n_layers": 2, "d_model": 32, "n_heads": 4}


def model_of(**changes: object):
    torch.manual_seed(0)
    return build(preset("llama-nano", **SIZES, n_kv_heads=2, d_ff=48, **changes)).eval()


def test_examples() -> None:
    assert doctest.testmod(cache).failed == 0


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_what_is_read_is_what_was_written_rounded(bits: int) -> None:
    torch.manual_seed(0)
    k, v = torch.randn(2, 3, 5, 10), torch.randn(2, 3, 5, 10)
    kept = QuantizedKVCache(2, 3, 8, 10, bits=bits)
    kept.append(k[:, :, :2], v[:, :, :2])
    keys, values = kept.append(k[:, :, 2:], v[:, :, 2:])
    for x, found in ((k, keys), (v, values)):
        rows = nearest(x.flatten(0, 2), Integers(bits, symmetric=False, share=10)).matrix()
        torch.testing.assert_close(found, rows.view_as(x))
    kept.crop(1)
    assert kept.length == 1 and torch.equal(
        kept.append(k[:, :, :0], v[:, :, :0])[0], keys[:, :, :1]
    )


def test_a_model_reads_at_once_and_token_by_token_the_same() -> None:
    model = model_of()
    ids = torch.randint(19, (2, 12))
    exact = model(ids)
    off = []
    for bits in (8, 4):
        whole = model(ids, cache=quantized_caches(model, 2, 12, bits))
        caches = quantized_caches(model, 2, 12, bits)
        steps = [model(ids[:, i : i + 1], cache=caches) for i in range(12)]
        torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-5, rtol=1e-4)
        off.append((whole - exact).abs().max().item())
    assert off[0] < 0.02 and off[0] < off[1] / 4


def test_padding_on_the_left_is_not_looked_at() -> None:
    model = model_of()
    starts = torch.tensor([0, 3])
    ids = torch.randint(19, (2, 8))
    padded = model(ids, cache=quantized_caches(model, 2, 8, 8, starts=starts))[1, 3:]
    alone = model(ids[1:, 3:], cache=quantized_caches(model, 1, 5, 8))[0]
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-4)


def test_memory_is_smaller() -> None:
    model = model_of()
    plain = model.make_caches(1, 32).nbytes  # 8 numbers a head: 32 bytes
    small = [quantized_caches(model, 1, 32, bits).nbytes for bits in (8, 4)]
    assert [plain / 32, small[0] / (8 + 3), small[1] / (4 + 3)] == [256, 256, 256]


def test_refused() -> None:
    with pytest.raises(ValueError, match="block 0 keeps a WindowCache: only keys and values"):
        quantized_caches(model_of(window=4), 1, 32, 4)
    kept = QuantizedKVCache(1, 2, 4, 8)
    with pytest.raises(ValueError, match=r"for values \(batch = 1, n_kv_heads = 2, new"):
        kept.append(torch.zeros(1, 2, 1, 8), torch.zeros(1, 2, 1, 7))
    with pytest.raises(ValueError, match="5 tokens more than the 0"):
        kept.append(torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 5, 8))
    assert kept.length == 0
