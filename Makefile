# Two commands do everything: `make book` builds the book, `make test` checks all of it.
# Each makes its own .venv first. Other Python: `make book PYTHON=python3.12`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
NPM    := $(shell command -v npm 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help book test lab serve lint types imports unit chapters clean data assets edit notebook bench

help:  ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[book,lab,dev]"
	@touch $@
