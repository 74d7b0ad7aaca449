"""The command `jupyter-book` on all cores: Sphinx can, and the command has no switch for it.

python book/tools/all_cores.py build .
"""

import os
import sys
from functools import partial

import jupyter_book.sphinx
from jupyter_book.cli.main import main

if __name__ == "__main__":
    jobs = os.cpu_count() or 1
    jupyter_book.sphinx.build_sphinx = partial(jupyter_book.sphinx.build_sphinx, jobs=jobs)
    main(sys.argv[1:])
