"""What comes with the package: records of the studies, the model that was kept, the chapters.

In a checkout each lies where it is written. A wheel holds all three, in one folder of the package.
"""

from importlib.resources import files
from pathlib import Path

INSIDE = "_shipped"
"""The folder in a wheel's package; a checkout has none."""
PLACES = {"results": "data/results", "models": "data/models", "chapters": "book/chapters"}
"""Where each is in a checkout."""


def checkout() -> Path | None:
    """The root of the checkout that this package runs from; None if it came as a wheel."""
    package = _package()
    from_wheel = (package / INSIDE).is_dir() or not (package.parent / "pyproject.toml").is_file()
    return None if from_wheel else package.parent


def shipped(what: str) -> Path:
    """The folder of ``what``, one of `PLACES`. A wheel's is to be read, never written."""
    root = checkout()
    return _package() / INSIDE / what if root is None else root / PLACES[what]


def _package() -> Path:
    return Path(str(files("llmtutor")))
