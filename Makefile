# Every target sets up what it needs: a virtual environment in .venv, remade when setup.py changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOLO_LEARN := solo-learn==1.0.2

.PHONY: demo test test-slow lint types docs lessons dist test-versions build-check check clean

demo: $(READY)
	$(BIN)/python -m solo_bridge demo

# A process for each core, at most four, with one thread each.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# The pages' code is run, one page after another with one thread: kernels that begin at once may
# find the same free port. Open docs/_build/html/index.html.
docs: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -W --keep-going -d docs/_build/doctrees docs docs/_build/html

# Notebooks and scripts of docs/lessons, into examples/lessons.
lessons:
	$(PYTHON) docs/lessons/make.py

# With the lowest and the newest versions; uv makes the environments, some 6 GB each.
PYTHONS ?= 3.10:lowest 3.12 3.13
test-versions: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks.versions .venv-versions $(PYTHONS)

# Build wheel and sdist of the last commit, twice: the same bytes, and nothing that does not belong.
dist: $(READY)
	rm -rf dist
	$(BIN)/python tests/check_dist.py dist

# Install each into an empty environment, import both packages there.
# -I: beside the script lie folders of tests with the names of the packages.
build-check: dist
	rm -rf .venv-empty
	$(PYTHON) -m venv .venv-empty
	.venv-empty/bin/python -m pip install --quiet dist/*.whl
	cd / && "$(CURDIR)/.venv-empty/bin/python" -I "$(CURDIR)/tests/check_installed.py"
	.venv-empty/bin/python -m pip install --quiet --no-deps --force-reinstall dist/*.tar.gz
	cd / && "$(CURDIR)/.venv-empty/bin/python" -I "$(CURDIR)/tests/check_installed.py"
	rm -rf .venv-empty

check: test lint types docs build-check

# solo-learn's only release pins torch 1.9.1, so it comes without its dependencies; what it needs
# at run time is in the extra [solo], which [dev] contains.
$(READY): setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps $(SOLO_LEARN)
	touch $(READY)

clean:
	rm -rf $(VENV) .venv-empty .venv-versions build dist docs/_build runs *.egg-info
