"""What the wheel holds besides the package: records, the kept model, chapters without outputs.

Hatchling runs this when it builds; an editable install finds all of it in the checkout.
"""

import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Shipped(BuildHookInterface):
    """Puts the folders of `llmtutor.data.shipped` into the wheel, without what is not theirs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files; ``version`` is what kind of wheel is built."""
        if version == "editable":
            return
        root = Path(self.root)
        # Run by path: the package itself cannot be imported where a wheel is built.
        shipped = runpy.run_path(str(root / "llmtutor/data/shipped.py"))
        handed_out = runpy.run_path(str(root / "llmtutor/workspace/notebooks.py"))["handed_out"]
        self.chapters = tempfile.TemporaryDirectory()
        for place, folder in shipped["PLACES"].items():
            for path in files(root / folder):
                name = path.relative_to(root / folder).as_posix()
                if path.suffix == ".ipynb":
                    path = self._written(name, handed_out(path.read_bytes()))
                inside = f"llmtutor/{shipped['INSIDE']}/{place}/{name}"
                build_data["force_include"][str(path)] = inside

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the chapters that were made for the wheel."""
        if version != "editable":
            self.chapters.cleanup()

    def _written(self, name: str, content: bytes) -> Path:
        path = Path(self.chapters.name) / name
        path.write_bytes(content)
        return path


def files(folder: Path) -> list[Path]:
    """All files of a folder but those that are hidden, or lie in a hidden folder."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return [p for p in sorted(paths) if not any(n[0] == "." for n in p.relative_to(folder).parts)]
