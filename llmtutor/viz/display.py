"""Plots, every chapter: show a figure together with its alternative text, as one output."""

import base64
import io
import re

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure

from llmtutor.viz.alt import alt_text
from llmtutor.viz.style import style


def show(fig: Figure) -> None:
    """Display a figure as a picture and, in the same output, as text computed from its data.

    A notebook keeps both: readers see the picture, screen readers and tests read the text.
    """
    text = alt_text(fig)
    width, height = (int(v * 100) for v in fig.get_size_inches())
    display(
        {"image/png": base64.b64encode(png(fig)).decode("ascii"), "text/plain": text},
        metadata={"image/png": {"width": width, "height": height}},
        raw=True,
    )
    plt.close(fig)


def png(fig: Figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    with style(), io.BytesIO() as file:
        fig.savefig(file, format="png", metadata={"Software": None})
        return file.getvalue()


def svg(fig: Figure, salt: str) -> str:
    """The figure as an SVG document; the same figure and ``salt`` give the same text.

    Fonts are those of the reader, and two decimals of a point are enough for a place.
    """
    with style(), io.StringIO() as file:
        plt.rcParams["svg.hashsalt"] = salt
        fig.savefig(
            file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
        document = file.getvalue()
    document = document[document.index("<svg") :]
    document = re.sub(r"font-family: [^;]*;", "font-family: 'DejaVu Sans', sans-serif;", document)
    document = re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}", document)
    return re.sub(r"\n\s*", "\n", document)
