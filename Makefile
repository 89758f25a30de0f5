# `make train` and `make test` do their own set-up in .venv. `make` lists everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=
WORKERS ?= 2 # processes of the tests
FUZZ ?= 20000 # inputs of each format, and a tenth as many of each kind of folder

.DEFAULT_GOAL := help
.PHONY: help install train test test-long quick lint type docs bench bench-step bench-cpu sweep clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## install into .venv, in the versions of constraints.txt

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

train: $(READY) ## train on the embedded data; ARGS='model.n_filters=64 seed=1' to change it
	$(BIN)/cherimoya-train $(ARGS)

test: $(READY) ## run every test that needs no GPU
	$(BIN)/pytest -n $(WORKERS) -m "not gpu" $(ARGS)

test-long: $(READY) ## break commands off, 20 times each, and fuzz all readers with FUZZ=20000 (two hours)
	$(BIN)/python tests/faults/campaign.py --trials 20 $(ARGS)
	CHERIMOYA_FUZZ_GUIDED=$(FUZZ) $(BIN)/pytest -n $(WORKERS) tests/test_fuzz_*.py tests/*/test_fuzz_*.py

quick: $(READY) ## run the quick tests alone, in 5 minutes on 2 cores
	$(BIN)/pytest -n $(WORKERS) -m "not gpu and not slow" $(ARGS)

lint: $(READY) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(READY) ## check types
	$(BIN)/mypy

docs: $(READY) ## build the documentation into docs/_build/html, warnings as errors
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(READY) ## time the fused kernels on this GPU; UPSTREAM=<folder with upstream's cherimoya>
	$(BIN)/python experiments/kernels/bench.py --quick $(if $(UPSTREAM),--upstream $(UPSTREAM)) $(ARGS)
	$(BIN)/python experiments/kernels/plots.py

bench-step: $(READY) ## time whole training steps and epochs on this GPU; UPSTREAM as for bench
	$(BIN)/python experiments/train_step/bench.py $(if $(UPSTREAM),--upstream $(UPSTREAM)) $(ARGS)

bench-cpu: $(READY) ## time the CPU training step; UPSTREAM=<python with upstream's cherimoya> to compare
	$(BIN)/python experiments/cpu_step/bench.py $(if $(UPSTREAM),--upstream-python $(UPSTREAM)) $(ARGS)

sweep: $(READY) ## a small sweep over depth and width on the embedded data
	$(BIN)/cherimoya-train sweep=depth_width_small $(ARGS)

clean: ## remove .venv and caches, never outputs
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
