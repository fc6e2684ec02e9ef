# `make` sets up .venv; every other target sets it up first when it is missing.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-slow test-reliability test-matrix lint types docs bench bench-zjets bench-scale notebooks clean

setup: $(STAMP)

# The newest suitable Python, then uv, then a message that says what to install.
$(STAMP): pyproject.toml
	@bash scripts/setup.sh $(VENV)
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/bayesunfold demo --out demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

# fifty kills of every kind of write, and many flipped bytes: about half an hour
test-reliability: $(STAMP)
	OMP_NUM_THREADS=1 BAYESUNFOLD_KILLS=50 BAYESUNFOLD_FLIPS=300 $(BIN)/python -m pytest -n 2 tests/_support/test_files.py

# lowest and newest versions, other processors' kernels: about half an hour
test-matrix: $(STAMP)
	bash scripts/test_matrix.sh

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/codespell README.md CHANGELOG.md CONTRIBUTING.md docs/*.md docs/studies/*.md docs/examples paper bayesunfold tests scripts benchmarks notebooks

types: $(STAMP)
	$(BIN)/mypy

notebooks: $(STAMP)
	$(BIN)/python scripts/run_notebooks.py notebooks/*.ipynb

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-compile --group docs
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(STAMP)
	$(BIN)/python benchmarks/bench_unfold.py

bench-zjets: $(STAMP)
	$(BIN)/python benchmarks/bench_zjets.py

# a grid of sizes, about an hour; finished cases are kept in bench-results/scale.json
bench-scale: $(STAMP)
	$(BIN)/python benchmarks/bench_scale.py

clean:
	rm -rf $(VENV) .venv-low demo bench-results
