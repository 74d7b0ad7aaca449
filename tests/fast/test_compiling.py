"""What is compiled for which device, and what it says where it cannot be."""

import sys

import pytest
import torch

from llmtutor.fast.compiling import compiled


@pytest.fixture
def asked(monkeypatch) -> list[dict]:
    """What ``torch.compile`` was asked for, in place of compiling."""
    calls: list[dict] = []
    monkeypatch.setattr(torch, "compile", lambda f, **options: calls.append(options) or f)
    return calls


def test_for_a_cpu_what_calls_the_operations_is_compiled_too(asked, monkeypatch) -> None:
    monkeypatch.setenv("CXX", sys.executable)
    assert compiled(torch.cos, torch.device("cpu"), dynamic=True) is torch.cos
    assert asked == [{"dynamic": True, "options": {"cpp_wrapper": True}}]


def test_another_device_needs_no_compiler_of_ours(asked, monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiled(torch.cos, torch.device("cuda")) is torch.cos
    assert asked == [{"dynamic": None}]


def test_without_a_compiler_it_says_so(asked, monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"no 'no-such-compiler': install .* variable CXX"):
        compiled(torch.cos, torch.device("cpu"))
    assert not asked
