"""The examples in the docstrings of this room give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import llmtutor.tokenizer

MODULES = [module.name for module in pkgutil.iter_modules(llmtutor.tokenizer.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(f"llmtutor.tokenizer.{name}")
    results = doctest.testmod(module)
    assert results.failed == 0
    assert results.attempted > 0 or name == "load"
