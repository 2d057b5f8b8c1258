# `make help` lists the commands. Everything is installed below $(VENV).
VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python
# At most so many processes for the tests; each needs about 1.5 GB.
JOBS ?= 4
# What `make gpu-bundle` is for.
STAGES ?= tests cost
# What `make bench-coco` runs on.
COCO ?= data/coco
GPUS ?= 8
# One thread each: with more they would share the cores, and be slower.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -q -n auto --maxprocesses $(JOBS) \
	--dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast lint bench-codec-cost bench-dmv-jnd \
	bench-dmv-jnd-reduced bench-coco bench-cost bench-gpu gpu-bundle \
	bench-report

help:  ## list the commands
	@grep -hE '^[a-z][a-z0-9_%-]*:.*##' $(MAKEFILE_LIST) | \
		awk -F ':.*## ' '{printf "  make %-28s %s\n", $$1, $$2}'

setup:  ## create the environment (a no-op when it is complete)
	@command -v $(PYTHON) >/dev/null || { echo "ERROR: $(PYTHON) is not on \
	PATH. Install Python 3.10, 3.11 or 3.12, or run 'make PYTHON=/path/to/\
	python3 ...'."; exit 1; }
	@$(PYTHON) tools/setup_env.py --venv $(VENV)

demo: setup  ## train and test a small model on made-up images
	$(PY) tools/demo.py

test: setup  ## lint, then the whole test suite (5 minutes on two cores)
	$(PY) -m ruff check .
	@echo "The whole suite takes about 5 minutes on two cores; 'make test-fast' \
	leaves out the slow tests."
	$(PYTEST)

test-fast: setup  ## lint, then all tests but the slow ones (2 minutes on two cores)
	$(PY) -m ruff check .
	$(PYTEST) -m "not slow"

lint: setup  ## lint only
	$(PY) -m ruff check .

bench-featjnd-%: setup  ## where noise costs the least: yolox, mobilenet, dsb2018 or cifar10 (an hour or more)
	$(PY) benchmarks/featjnd.py $*

bench-measured_jnd-%: setup  ## thresholds that are measured, of the same (an hour or more)
	$(PY) benchmarks/measured_jnd.py $*

bench-quantization-%: setup  ## features against pictures in bits, of the same (hours)
	$(PY) benchmarks/quantization.py $*

bench-codec-cost: setup  ## latency of the codec (minutes)
	$(PY) benchmarks/codec_cost.py

bench-dmv-jnd: setup  ## DMV-JND on CIFAR-10 (data/cifar10; needs a GPU)
	$(PY) benchmarks/dmv_jnd.py full

bench-dmv-jnd-reduced: setup  ## the same with narrow classifiers (hours on a CPU)
	$(PY) benchmarks/dmv_jnd.py reduced

bench-coco: setup  ## all of it on public R-50 checkpoints (COCO=data/coco GPUS=8)
	$(PY) benchmarks/coco.py --coco $(COCO) --gpus $(GPUS)

bench-cost: setup  ## time FeatJND against its hosts
	$(PY) benchmarks/cost.py

bench-gpu:  ## all that waits for a GPU, in stages (see docs/dev/gpu.md)
	$(PYTHON) benchmarks/gpu.py

gpu-bundle:  ## what STAGES need on a GPU without network, in .gpu
	$(PY) benchmarks/gpu_bundle.py $(STAGES)

bench-report: setup  ## write docs/benchmarks.md from benchmarks/results
	$(PY) benchmarks/report.py
