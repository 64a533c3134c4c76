# make run   the main job, from reviews to recommendations, on the data in data/
# make test  the gate: lint, types, tests
# make prove the longer proofs that the gate leaves out
# make lock  after a change of constraints.txt: the hashes and licences of what it pins; needs uv on the path
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Nothing here looks for models on a hub: what is needed comes with the packages.
export HF_HUB_OFFLINE = 1

.PHONY: run test prove lock clean
.DEFAULT_GOAL := run

run: $(STAMP)
	$(BIN)/python scripts/run.py

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/deptry recsys_jax scripts tests
	$(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist loadfile

prove: $(STAMP)
	$(BIN)/pytest -m slow

# torch stays out, since not everybody's file is the same (PyPI's needs CUDA, others don't): its version alone is pinned.
lock: $(STAMP)
	uv pip compile --quiet --no-config --no-deps --generate-hashes --only-binary :all: --emit-build-options \
		--no-annotate --no-emit-package torch --python-version 3.11 --custom-compile-command "make lock" \
		constraints.txt --output-file requirements.txt
	$(BIN)/python .ci/licences.py docs/licences.md

# Installed once: again only when the requirements change. First every file but torch's, checked against its hash; then
# torch, what it needs on this machine, and the package itself, built by the setuptools that was checked.
$(STAMP): pyproject.toml constraints.txt requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "recsys_jax needs Python 3.11 or newer; choose one with: make PYTHON=python3.12 run"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes --no-deps --requirement requirements.txt
	$(PIP) install --constraint constraints.txt --no-build-isolation \
		--config-settings editable_mode=compat --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
