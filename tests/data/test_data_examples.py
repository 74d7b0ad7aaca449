"""The examples in the docstrings of the data room are true."""

import doctest
import importlib
import pkgutil

import pytest

import llmtutor.data

MODULES = [module.name for module in pkgutil.iter_modules(llmtutor.data.__path__)]
WITH_EXAMPLES = {"batches", "corpora", "duplicates", "places", "readers"}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_examples(name: str) -> None:
    module = importlib.import_module(f"llmtutor.data.{name}")
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
    assert result.attempted > 0 or name not in WITH_EXAMPLES
