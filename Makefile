# Each target makes what it needs: a fresh clone wants Python, make and pip, nothing else.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help env demo test check bench model clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

env: $(READY)  ## .venv with everything, pinned by constraints.txt
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(READY)  ## the whole way on made-up films, under two minutes
	$(BIN)/hilum demo

test: $(READY)  ## the whole test suite (real films: HILUM_FILMS=folder)
	$(BIN)/python -m pytest -n 2
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -n 2 tests/networks/test_gpu_kernels.py

check: $(READY)  ## style, types, the house rules, the docs' commands
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest tests/house

bench: $(READY)  ## the benchmarks, in short form (full form: benchmarks/README.md)
	$(BIN)/python benchmarks/step.py --quick

model: $(READY)  ## make the shipped model anew: make model DATA=folder-of-kermany-films
	$(BIN)/python scripts/ship_model.py "$(DATA)"

clean:  ## forget the environment
	rm -rf .venv .bench
