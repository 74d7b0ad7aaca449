"""A release: the version is the same everywhere, and the change log says what it holds.

    python book/tools/release.py check v0.1.0    ends with 1 and says what does not agree
    python book/tools/release.py notes v0.1.0    what the change log says of this version

`.github/workflows/release.yml` asks both before it builds anything.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

import llmtutor

ROOT = Path(__file__).resolve().parents[2]
HEADING = re.compile(r"^## \[(?P<name>[^\]]+)\](?: - (?P<day>\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)
UNRELEASED = "Unreleased"


def sections(changes: str) -> dict[str, tuple[str | None, str]]:
    """The day and the text of each version of a change log, the latest first."""
    found = list(HEADING.finditer(changes))
    ends = [*(match.start() for match in found[1:]), len(changes)]
    return {
        match["name"]: (match["day"], changes[match.end() : end].strip())
        for match, end in zip(found, ends, strict=True)
    }


def problems(tag: str, root: Path = ROOT) -> list[str]:
    """What does not agree with a tag such as "v0.1.0", in words; an empty list when all does."""
    if not re.fullmatch(r"v\d+\.\d+\.\d+", tag):
        return [f"expected a tag like v0.1.0, received {tag!r}"]
    version, found = tag.removeprefix("v"), []
    if llmtutor.__version__ != version:
        found.append(f"llmtutor/__init__.py says {llmtutor.__version__}, the tag {version}")
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    if str(citation["version"]) != version:
        found.append(f"CITATION.cff says {citation['version']}, the tag {version}")
    known = sections((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    day, text = known.get(version, (None, ""))
    if not day or not text:
        found.append(f"CHANGELOG.md has no section '## [{version}] - DAY' with words in it")
    elif str(citation.get("date-released")) != day:
        released = citation.get("date-released")
        found.append(f"CITATION.cff is released on {released}, CHANGELOG.md says {day}")
    if known.get(UNRELEASED, (None, ""))[1]:
        found.append(f"CHANGELOG.md still has changes under [{UNRELEASED}]")
    return found


def notes(tag: str, root: Path = ROOT) -> str:
    """What the change log says of a tag's version.

    Raises:
        ValueError: it says nothing.
    """
    known = sections((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    version = tag.removeprefix("v")
    if version not in known:
        raise ValueError(f"CHANGELOG.md: expected a section [{version}], found {', '.join(known)}")
    return known[version][1]


def main(arguments: Sequence[str]) -> None:
    """Check a tag, or print its notes."""
    match list(arguments):
        case ["check", tag]:
            if found := problems(tag):
                sys.exit("\n".join(f"release: {problem}" for problem in found))
        case ["notes", tag]:
            print(notes(tag))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
