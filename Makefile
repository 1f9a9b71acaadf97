# make demo, make test: all a newcomer needs. The environment is made once and kept in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

.PHONY: demo test check format quality bench faults clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(INSTALL) --editable ".[test]"
	touch $@

demo: $(VENV)/installed   ## a planted world, from init to the reports, in ./demo
	rm -rf demo
	$(BIN)/peerwatch demo demo

test: $(VENV)/tested      ## everything that must always hold
	$(BIN)/python -m pytest --quiet --numprocesses 2 --dist loadfile

check: $(VENV)/tested     ## format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

format: $(VENV)/tested
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/measured: $(VENV)/tested
	$(INSTALL) --editable ".[test,quality]"
	touch $@

quality: $(VENV)/measured ## slow suites on real data, and the table of peers: PEERWATCH_DATA
	$(BIN)/python -m pytest tests/quality -s -o norecursedirs=".*"
	$(BIN)/python -m tests.quality.benchmark build/quality

bench: $(VENV)/tested     ## speed beside pandas, in one run
	$(BIN)/python -m tests.quality.bench

faults: $(VENV)/tested    ## kills, cuts, locks, full disks, jumping clocks: seeds and counts in a table
	$(BIN)/python -m pytest tests/faults -s -o norecursedirs=".*"

clean:
	rm -rf $(VENV) demo build dist *.egg-info
