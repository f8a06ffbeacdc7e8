# make demo: train a small bi-encoder from generated data.  make test: run the tests.
# make test-all: also the tests marked exhaustive, more combinations of what the others cover.
# make check: lint, types and the tests worth running at every save, in a minute and a half.
# All create .venv and install what they need, as make install does; later calls find it in place.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Many tests wait for processes that they have started. On two cores a fourth worker takes more than it gives.
WORKERS ?= 3
# Some machines ask Python to write no byte code: all workers and all that they start would compile everything.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: install demo test test-all check lint format clean
.DEFAULT_GOAL := test

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "torch>=2.11,<2.14"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(STAMP)

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/inbatch train experiment=demo

RUN_TESTS := $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --durations=25

test: $(STAMP) lint
	$(RUN_TESTS) -m "not exhaustive" $(PYTEST_ARGS)

test-all: $(STAMP) lint
	$(RUN_TESTS) $(PYTEST_ARGS)

# Tests without whole runs.
FAST := tests/test_imports.py tests/test_compat.py tests/test_commands.py tests/test_errors.py tests/test_config.py tests/optim tests/gradcache \
  tests/losses/test_losses_in_batch.py tests/losses/test_losses_pairs.py tests/losses/test_losses_matryoshka.py \
  tests/data/test_plan.py tests/data/test_chunks.py tests/data/test_columns.py tests/data/test_permutation.py \
  tests/encoder/test_pooling.py tests/encoder/test_head.py tests/slurm/test_sbatch.py

check: $(STAMP) lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow and not exhaustive" $(FAST)

lint: $(STAMP)
	$(BIN)/ruff check src tests scripts
	$(BIN)/ruff format --check src tests scripts
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix src tests scripts
	$(BIN)/ruff format src tests scripts

clean:
	rm -rf $(VENV) outputs multirun .pytest_cache .ruff_cache .mypy_cache
