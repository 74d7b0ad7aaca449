"""The table against cosines computed one at a time, and its life: kept, grown, made again."""

import math

import pytest
import torch

from llmtutor.layers.positions.angles import SHORTEST_TABLE, AngleTable, geometric_frequencies

FREQUENCIES = geometric_frequencies(6, 100.0)


@pytest.fixture
def builds(monkeypatch):
    """The lengths of the tables built."""
    lengths: list[int] = []
    build = AngleTable._build

    def counted(self, length, dtype, device):
        lengths.append(length)
        return build(self, length, dtype, device)

    monkeypatch.setattr(AngleTable, "_build", counted)
    return lengths


def table(positions, dtype=torch.float64, scale=1.0):
    return AngleTable(FREQUENCIES, scale)(positions, len(positions), dtype)


def test_frequencies_by_hand():
    want = torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64)
    torch.testing.assert_close(geometric_frequencies(6, 1000.0), want, rtol=1e-15, atol=0)


@pytest.mark.parametrize("scale", [1.0, 1.25])
def test_values_one_at_a_time(scale):
    positions = torch.tensor([0, 1, 17, 4000, 3])
    cos, sin = table(positions, scale=scale)
    for row, p in enumerate(positions.tolist()):
        for i in range(3):
            angle = p * 100.0 ** (-2 * i / 6)
            assert cos[row, i].item() == pytest.approx(scale * math.cos(angle), abs=1e-11)
            assert sin[row, i].item() == pytest.approx(scale * math.sin(angle), abs=1e-11)


def test_float32_table_is_the_float64_one_rounded():
    """At position 100,000 an angle made in float32 would be off by 0.004."""
    positions = torch.tensor([99_999, 100_000])
    for exact, single in zip(table(positions), table(positions, torch.float32), strict=True):
        assert single.dtype == torch.float32
        assert torch.equal(exact.float(), single)


def test_compiled_without_a_table_to_the_last_digit(builds):
    positions = torch.tensor([0, 17, 100_000])
    compiled = torch.compile(lambda p: table(p, torch.float32, 1.25), backend="eager")
    for got, want in zip(compiled(positions), table(positions, torch.float32, 1.25), strict=True):
        assert torch.equal(got, want)
    assert len(builds) == 1  # the second one, as written


def test_one_table_serves_many_calls_and_grows_by_doubling(builds):
    angles = AngleTable(FREQUENCIES)
    for _ in range(3):
        angles(torch.arange(10), 10, torch.float32)
    assert builds == [10]
    want = table(torch.arange(1000), torch.float32)
    builds.clear()
    for length in range(1, 1001):  # a text that grows token by token
        cos, sin = angles(torch.tensor([length - 1]), 1, torch.float32)
        assert torch.equal(cos[0], want[0][length - 1])
        assert torch.equal(sin[0], want[1][length - 1])
    assert builds == [SHORTEST_TABLE + 1, 2 * SHORTEST_TABLE + 1, 4 * SHORTEST_TABLE + 1]


def test_another_dtype_or_device_makes_another_table(builds):
    angles = AngleTable(FREQUENCIES)
    positions = torch.arange(4)
    assert angles(positions, 4, torch.float32)[0].dtype == torch.float32
    cos, sin = angles(positions, 4, torch.float64)
    assert torch.equal(cos, table(positions)[0]) and torch.equal(sin, table(positions)[1])
    assert angles(torch.zeros(4, dtype=torch.long, device="cpu"), 4, torch.float64)
    assert len(builds) == 3 + 1  # float32, float64, and the two references above


def test_a_table_made_in_inference_mode_serves_in_training():
    angles = AngleTable(FREQUENCIES)
    with torch.inference_mode():
        angles(torch.arange(4), 4, torch.float32)
    x = torch.ones(4, 3, requires_grad=True)
    cos, _ = angles(torch.arange(4), 4, torch.float32)
    (x * cos).sum().backward()
    assert torch.equal(x.grad, cos)


@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd, torch.func.hessian])
def test_a_table_made_inside_a_transform_serves_after_it(transform):
    angles = AngleTable(FREQUENCIES)

    def function(x):
        return (angles(torch.arange(4), 4, torch.float64)[0] * x**3).sum()

    x = torch.randn(4, 3, dtype=torch.float64)
    first = transform(function)(x)
    assert torch.equal(first, transform(function)(x))
    assert torch.equal(angles(torch.arange(4), 4, torch.float64)[0], table(torch.arange(4))[0])
    angles._tables[0].untyped_storage()  # of a wrapper this is an error


@pytest.mark.parametrize("dim", [-2, 0, 1, 7])
def test_components_must_be_even(dim):
    with pytest.raises(ValueError, match=f"even number of them, got {dim}"):
        geometric_frequencies(dim, 10_000)


@pytest.mark.parametrize("base", [1.0, 0.0, -5.0, math.inf, math.nan])
def test_base_must_be_above_one(base):
    with pytest.raises(ValueError, match=f"base must be a finite number above 1, got {base}"):
        geometric_frequencies(4, base)
