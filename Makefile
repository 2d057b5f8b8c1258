# `make help` lists the commands. Everything is installed below $(VENV).
VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint

help:  ## list the commands
	@grep -hE '^[a-z][a-z0-9-]*:.*##' $(MAKEFILE_LIST) | \
		awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup:  ## create the environment (a no-op when it is complete)
	@command -v $(PYTHON) >/dev/null || { echo "ERROR: $(PYTHON) is not on \
	PATH. Install Python 3.10, 3.11 or 3.12, or run 'make PYTHON=/path/to/\
	python3 ...'."; exit 1; }
	@$(PYTHON) tools/setup_env.py --venv $(VENV)

demo: setup  ## train and test a small model on made-up images
	$(PY) tools/demo.py

test: setup  ## lint, then the whole test suite
	$(PY) -m ruff check .
	$(PY) -m pytest -q

lint: setup  ## lint only
	$(PY) -m ruff check .
