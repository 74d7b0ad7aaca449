"""LLM Tutor: the finished code of a book that builds a modern language model step by step.

Importing the package loads nothing heavy; each package (``llmtutor.tokenizer``, ``llmtutor.data``, …)
is imported by name.
"""

__version__ = "0.1.0"
