# make run   the main job, from reviews to recommendations, on the data in data/
# make test  the gate: lint, types, tests
# make prove the longer proofs that the gate leaves out
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Nothing here looks for models on a hub: what is needed comes with the packages.
export HF_HUB_OFFLINE = 1

.PHONY: run test prove clean
.DEFAULT_GOAL := run

run: $(STAMP)
	$(BIN)/python scripts/run.py

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

prove: $(STAMP)
	$(BIN)/pytest -m slow

# Installed once: again only when the requirements change.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "recsys_jax needs Python 3.11 or newer; choose one with: make PYTHON=python3.12 run"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--config-settings editable_mode=compat --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
