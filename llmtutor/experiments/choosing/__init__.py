"""Chapter 20, comparison: the studies for somebody who has to choose an architecture.

``options`` are what is compared, ``trial`` is one run of one of them, ``plan`` says which runs
there are and in which order, ``cost`` measures time and memory, ``verdicts`` says what it shows.
"""

from llmtutor.experiments.choosing.options import OPTIONS, SIZES, Option, Size, option_config

__all__ = ["OPTIONS", "SIZES", "Option", "Size", "option_config"]
