"""What leaves a layer besides its output: told apart, named by place, joined."""

import torch

from llmtutor.layers.extras import Extras, joined, named, split_extras


def test_most_layers_return_an_output_alone() -> None:
    x, extras = torch.ones(2), Extras({"balance": torch.ones(())})
    output, nothing = split_extras(x)
    assert output is x and nothing == Extras({}, {}) and not any(nothing)
    assert split_extras((x, extras)) == (x, extras)
    assert any(extras)


def test_places_go_in_front_and_both_are_kept() -> None:
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    inner = named(Extras({"balance": one}, {"busiest": two}), "ffn")
    assert inner == Extras({"ffn.balance": one}, {"ffn.busiest": two})
    outer = named(inner, "blocks.0")
    assert list(outer.losses) == ["blocks.0.ffn.balance"]
    both = joined(outer, named(inner, "blocks.1"))
    assert list(both.losses) == ["blocks.0.ffn.balance", "blocks.1.ffn.balance"]
    assert list(both.statistics) == ["blocks.0.ffn.busiest", "blocks.1.ffn.busiest"]
    assert both.losses["blocks.1.ffn.balance"] is one
    assert joined(Extras(), inner) == inner == joined(inner, Extras())


def test_nobody_writes_into_the_empty_one() -> None:
    joined(Extras(), Extras({"a": torch.ones(())}))
    named(Extras(), "b")
    assert Extras() == ({}, {})
