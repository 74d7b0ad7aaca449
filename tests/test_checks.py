"""Words for what is refused: names, ranges, types."""

from dataclasses import dataclass
from typing import Literal, get_type_hints

import numpy as np
import pytest

from llmtutor.checks import (
    check_at_least,
    check_integer,
    check_name,
    check_number,
    check_types,
    nearest,
)


def test_the_nearest_name_is_offered() -> None:
    assert check_name("norm", "layernorm", ("layernorm", "rmsnorm")) == "layernorm"
    with pytest.raises(ValueError, match=r"unknown norm 'RMS'; did you mean 'rmsnorm'\? There are"):
        check_name("norm", "RMS", ("layernorm", "rmsnorm"))
    with pytest.raises(ValueError, match="unknown norm 3; did you mean"):
        check_name("norm", 3, ("layernorm", "rmsnorm"))
    with pytest.raises(ValueError, match="unknown norm 'x'; there is none"):
        check_name("norm", "x", ())
    assert nearest("qqq", ("layernorm",), cutoff=0.5) is None


def test_numbers_of_any_library_are_numbers() -> None:
    assert type(check_integer("k", np.int32(3), least=3)) is int
    assert check_number("p", np.float32(0.5), above=0) == 0.5
    for value in (True, 2.0, "2", None, np.bool_(True)):
        with pytest.raises(ValueError, match="k must be a whole number, got"):
            check_integer("k", value)
    with pytest.raises(ValueError, match="k must be at least 3, got 2"):
        check_integer("k", 2, least=3)
    for value in (True, "2", None, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="p must be a finite number, got"):
            check_number("p", value)
    with pytest.raises(ValueError, match="p must be above 0, got 0"):
        check_number("p", 0, above=0)
    with pytest.raises(ValueError, match="b must be at least 1, got 0"):
        check_at_least(1, a=1, b=0)


@dataclass
class Record:
    size: int = 1
    rate: float = 1.0
    on: bool = True
    name: str = ""
    pair: Literal["half", "next"] = "half"
    maybe: int | None = None
    way: Literal["a"] | None = None
    several: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": True}, "size must be int, got True"),
        ({"size": 1.0}, r"size must be int, got 1\.0"),
        ({"rate": True}, "rate must be float, got True"),
        ({"rate": "1"}, "rate must be float, got '1'"),
        ({"on": 1}, "on must be bool, got 1"),
        ({"pair": "halb"}, "pair must be one of 'half', 'next', got 'halb'"),
        ({"pair": None}, "pair must be one of 'half', 'next', got None"),
        ({"maybe": "x"}, "maybe must be int or nothing, got 'x'"),
        ({"way": "b"}, "way must be one of 'a' or nothing, got 'b'"),
        ({"several": ["x"]}, r"several must be tuple, got \['x'\]"),
    ],
)
def test_values_of_another_type_are_refused_by_name(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_types(Record(**changes), get_type_hints(Record))


def test_values_of_their_type_pass() -> None:
    for fine in (Record(), Record(rate=1, maybe=2, way="a", several=("x",))):
        check_types(fine, get_type_hints(Record))
