"""``python -m llmtutor`` is ``llmtutor``: what torchrun starts, in every chapter that trains."""

import sys

from llmtutor.cli import main

if __name__ == "__main__":
    sys.exit(main())
