"""What every part says about itself: plain checked values that go to JSON, and costs that add."""

import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest

from llmtutor.layers.norms import NormConfig, RMSNormConfig
from llmtutor.layers.part import Costs, Load, Part, Site, field_names


@dataclass(frozen=True)
class Toy(Part):
    kind: ClassVar[str] = "toy"
    size: int
    factor: float = 1.0
    side: Literal["left", "right"] = "left"
    norm: NormConfig | None = None


@dataclass(frozen=True)
class Bare(Part):
    kind: ClassVar[str] = "bare"


def test_plain_values_come_out_kind_first() -> None:
    toy = Toy(3, side="right", norm=RMSNormConfig(eps=0.1))
    want = {
        "kind": "toy",
        "size": 3,
        "factor": 1.0,
        "side": "right",
        "norm": {"kind": "rmsnorm", "eps": 0.1, "offset": False},
    }
    assert toy.to_dict() == want and next(iter(toy.to_dict())) == "kind"
    assert json.loads(json.dumps(toy.to_dict())) == want
    assert Bare().to_dict() == {"kind": "bare"}
    assert field_names(Toy) == ["size", "factor", "side", "norm"] and field_names(Part) == []


def test_parts_are_values() -> None:
    assert Toy(3) == Toy(3) and hash(Toy(3)) == hash(Toy(3)) and Toy(3) != Toy(4)
    assert dataclasses.replace(Toy(3), size=4) == Toy(4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Toy(3).size = 4  # type: ignore[misc]
    assert Toy(3, factor=2).factor == 2  # a whole number is a number


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": "3"}, "size must be int, got '3'"),
        ({"size": 3.0}, "size must be int, got 3.0"),
        ({"size": True}, "size must be int, got True"),
        ({"factor": None}, "factor must be float, got None"),
        ({"side": "up"}, "side must be one of 'left', 'right', got 'up'"),
        ({"norm": {"kind": "rmsnorm"}}, "norm must be NormConfig or nothing, got {'kind'"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(values, message) -> None:
    with pytest.raises(ValueError, match=message):
        Toy(**{"size": 3, **values})
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(Toy(3), **values)


def test_costs_add_up_field_by_field() -> None:
    one, ten = Costs(1, 2, 3, 4, 5), Costs(10, 20, 30, 40, 50)
    assert one + ten == Costs(11, 22, 33, 44, 55) == ten + one
    assert one + Costs() == one and sum([one, ten], Costs()) == one + ten


def test_a_load_counts_bytes_of_one_number_for_each_token() -> None:
    assert Load(3, 5).tokens_bytes == 60 and Load(3, 5, itemsize=2).tokens_bytes == 30


def test_a_site_in_another_block_shares_its_modules() -> None:
    site = Site(8, 16, n_layers=4)
    third = site.at(2)
    assert (third.layer, third.d_model, third.max_seq_len, third.n_layers) == (2, 8, 16, 4)
    assert third.shared is site.shared
    assert site.layer == 0 and site == Site(8, 16, 4)
    assert Site(8, 16).shared is not site.shared
