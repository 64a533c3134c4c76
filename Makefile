# make run     the main job, from reviews to recommendations, on the data in data/; make run ARGS='--language ko': in Korean
# make test    the gate: lint, types, rooms, tests
# make browser the page of a run in a browser: Chromium, where one is installed
# make docs    the manuals and the API as a site, in build/docs/VERSION; make docs-of-tags: a folder for each git tag
# make prove   the longer proofs that the gate leaves out: docs/developing.md lists them, with what each proves
# make matrix  the tests that need no PyTorch, on each Python there is, with the pinned versions and with the newest
# make lock    after a change of pyproject.toml or constraints.txt: the hashes and licences of what is pinned; needs uv
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Nothing is compiled beforehand: that takes longer than the installation, and most of it is never imported.
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check install --no-compile
# The package itself, by the setuptools that was checked.
SELF   := --no-build-isolation --editable
UV     := uv pip compile --quiet --no-config --generate-hashes --only-binary :all: --emit-build-options --no-annotate \
	--python-version 3.11 --custom-compile-command "make lock"
# Most of the gate's time XLA compiled small programs: it needs much less for them without its fusion emitters, most
# optimisations and a split for threads. Tests that train for long have the fixture `optimised`.
# `make prove`, `make matrix` and pytest by itself run the programs that people run.
QUICK  := JAX_DISABLE_MOST_OPTIMIZATIONS=1 \
	XLA_FLAGS="--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 $$XLA_FLAGS"
# Nothing here looks for models on a hub: what is needed comes with the packages.
export HF_HUB_OFFLINE = 1
# What was compiled at the first import is kept, whatever is set outside: else every process would take seconds for it.
export PYTHONDONTWRITEBYTECODE =

.PHONY: run test browser docs docs-of-tags prove matrix lock clean
.DEFAULT_GOAL := run

run: $(VENV)/.run
	$(BIN)/recsys-jax run data/amoremall $(ARGS)

# mypy takes half a minute of one processor: it runs beside the tests. What it says follows theirs, and the last lines name what failed.
test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/deptry recsys_jax scripts tests
	$(BIN)/lint-imports
	@$(BIN)/mypy > $(VENV)/mypy.txt 2>&1 & mypy=$$!; \
	$(QUICK) $(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist worksteal; tests=$$?; \
	wait $$mypy; types=$$?; echo mypy; cat $(VENV)/mypy.txt; \
	test $$tests = 0 || echo "Failed: pytest"; test $$types = 0 || echo "Failed: mypy"; exit $$((tests || types))

browser: $(VENV)/.dev
	$(BIN)/pytest tests/report

# The version stands in the title and in the path.
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
docs: $(VENV)/.dev
	@echo "Building the site, which takes a minute"
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --conf-dir docs/site --doctree-dir build/doctrees . build/docs/$(VERSION)
	@echo "The site is in build/docs/$(VERSION): open index.html there in a browser"

# A folder for each git tag whose sources have a site, and a list of them. Docstrings are those of the tag.
docs-of-tags: $(VENV)/.dev
	@mkdir -p build/docs; failed=; for tag in $$(git tag --sort=-version:refname); do \
		git cat-file -e $$tag:docs/site/conf.py 2>/dev/null || continue; \
		git worktree add --quiet --detach build/of-tag $$tag && \
		(cd build/of-tag && PYTHONPATH=. $(abspath $(BIN))/python -m sphinx --quiet --fail-on-warning --keep-going \
			--conf-dir docs/site . $(CURDIR)/build/docs/$$tag) || failed="$$failed $$tag"; \
		git worktree remove --force build/of-tag; \
	done; test -z "$$failed" || { echo "Failed: the docs of$$failed"; exit 1; }
	@cd build/docs && { echo '<!doctype html><meta charset="utf-8"><title>recsys_jax</title><h1>recsys_jax</h1><ul>'; \
		for one in $$(ls -d */ | sort -Vr); do echo "<li><a href=\"$$one\">$${one%/}</a>"; done; } > index.html

prove: $(VENV)/.dev
	$(BIN)/pytest -m slow

matrix:
	$(PYTHON) .ci/matrix.py

# torch stays out, since not everybody's file is the same (PyPI's needs CUDA, others don't): its version alone is pinned.
lock: $(VENV)/.dev
	grep '^setuptools==' constraints.txt | $(UV) --constraint constraints.txt pyproject.toml - --output-file requirements.txt
	sed -n 's/ \\$$//p' requirements.txt | grep -vxiFf - constraints.txt | grep -v '^torch==' \
		| $(UV) --no-deps - --output-file requirements-dev.txt
	$(BIN)/python .ci/licences.py docs/licences.md

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "recsys_jax needs Python 3.11 or newer; choose one with: make PYTHON=python3.12 run"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# What `make run` needs: every file is checked against its hash. Installed once, again only when the requirements change.
$(VENV)/.run: pyproject.toml requirements.txt | $(VENV)/.made
	$(PIP) --require-hashes --no-deps --requirement requirements.txt
	$(PIP) --no-deps $(SELF) .
	@# A clone is called as the package: started from the folder above it, Python would take that for the package.
	@echo "$(CURDIR)" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/recsys_jax.pth"
	@touch $@

# All else, for the gate. pip uses one processor, so two work side by side; at last what torch needs on this machine.
$(VENV)/.dev: pyproject.toml requirements.txt requirements-dev.txt constraints.txt
	@$(MAKE) --no-print-directory --jobs=2 $(VENV)/.run $(VENV)/.checked $(VENV)/.torch
	$(PIP) --constraint constraints.txt $(SELF) ".[dev]"
	@touch $@

$(VENV)/.checked: requirements-dev.txt | $(VENV)/.made
	$(PIP) --require-hashes --no-deps --requirement requirements-dev.txt
	@touch $@

# It has no hash here.
$(VENV)/.torch: constraints.txt | $(VENV)/.made
	$(PIP) --no-deps $$(grep '^torch==' constraints.txt)
	@touch $@

clean:
	rm -rf $(VENV) .venv-matrix runs .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
