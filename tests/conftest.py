"""A place for the programs that the tests make."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture
def own_programs(programs: Path, monkeypatch) -> None:
    """What is compiled is made here, and not found where another run has left it."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(programs))
