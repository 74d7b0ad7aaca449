"""What a printed book must be, read from its PDF alone. `problems` says all that is wrong."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pikepdf

TEXT = re.compile(rb"/(\w+)\s+[-\d.]+\s+Tf|<([0-9A-Fa-f]+)>")
"""In the drawing of a page: a font is chosen, or glyphs are shown by their numbers."""


def count(path: Path) -> int:
    """How many pages a PDF has."""
    with pikepdf.open(path) as pdf:
        return len(pdf.pages)


def places(path: Path) -> dict[str, int]:
    """The number of the page, from 1, on which each named place lies."""
    with pikepdf.open(path) as pdf:
        numbers = {page.objgen: number for number, page in enumerate(pdf.pages, 1)}
        named: Any = pdf.Root.get("/Dests", {})
        return {name.removeprefix("/"): numbers[named[name][0].objgen] for name in named}


def pack(path: Path, author: str) -> None:
    """Write a PDF anew with its small objects packed, a third of the size, and name its author.

    Chromium writes an object of its own for every coloured word of code.
    """
    packed = path.with_name(f"{path.name}.packed")
    with pikepdf.open(path) as pdf:
        pdf.docinfo["/Author"] = author
        pdf.save(packed, object_stream_mode=pikepdf.ObjectStreamMode.generate)
    packed.replace(path)


def problems(path: Path) -> list[str]:
    """All that is wrong with a PDF, in words; an empty list when it is fine."""
    found: list[str] = []
    fonts: dict[str, Any] = {}
    with pikepdf.open(path) as pdf:
        root: Any = pdf.Root
        if "/First" not in root.get("/Outlines", {}):
            found.append("no outline: a reader's side bar stays empty")
        known = {name.removeprefix("/") for name in root.get("/Dests", {})}
        for number, page in enumerate(pdf.pages, 1):
            lost = [name for name in _targets(page.obj) if name not in known]
            found += [f"page {number}: a link to {name}, which is nowhere" for name in lost]
            own = {name.removeprefix("/"): font for name, font in _fonts(page.obj).items()}
            page.contents_coalesce()
            if missing := _undrawn(page.obj, own):
                found.append(f"page {number}: {missing} letters that their font does not have")
            fonts |= {str(font.get("/BaseFont", ""))[1:]: font for font in own.values()}
        gone = sorted(name for name, font in fonts.items() if not inside(font))
    return found + [f"font {name} is not in the file" for name in gone]


def _targets(page: Any) -> Iterator[str]:
    """Names of the places that the links of a page lead to."""
    for link in page.get("/Annots", []):
        target = link.get("/Dest", link.get("/A", {}).get("/D"))
        if link.get("/Subtype") == "/Link" and isinstance(target, pikepdf.Name | pikepdf.String):
            yield str(target).removeprefix("/")


def _fonts(page: Any) -> Any:
    return page.get("/Resources", {}).get("/Font", {})


def inside(font: Any) -> bool:
    """Whether the letters of a font are in the file."""
    if font["/Subtype"] == "/Type3":  # drawn by the file itself
        return True
    own = font["/DescendantFonts"][0] if "/DescendantFonts" in font else font
    descriptor = own.get("/FontDescriptor", {})
    return any(f"/FontFile{kind}" in descriptor for kind in ("", "2", "3"))


def _undrawn(page: Any, fonts: dict[str, Any]) -> int:
    """How often a page shows glyph 0, the box of a letter that the font does not have."""
    if "/Contents" not in page:
        return 0
    two_bytes, missing = False, 0
    for chosen, shown in TEXT.findall(page.Contents.read_bytes()):
        if chosen:
            two_bytes = fonts[chosen.decode()]["/Subtype"] == "/Type0"
        elif two_bytes:
            missing += sum(shown[i : i + 4] == b"0000" for i in range(0, len(shown), 4))
    return missing
