# Every target works from a fresh clone; `setup` makes .venv from the pinned lock, the rest depend on it.
PYTHON ?= python3
BIN := .venv/bin
PY := $(BIN)/python
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
export PYTHONUNBUFFERED := 1

.PHONY: help setup run notebooks test test-oldest lint bench bench-compare report readme sweep lock clean
.DEFAULT_GOAL := help

help:  ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready  ## make .venv with the pinned packages

.venv/.ready: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "saidl needs Python 3.10 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --require-hashes --requirement requirements.lock
	@touch $@

# memory is kept, not handed back to Linux and fetched again: README, Speed
run sweep: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296
run: setup  ## execute the notebooks (SAIDL_PROFILE=quick unless set), then make the report
	$(PY) -m tests.notebooks --inplace $(NOTEBOOKS)
	$(PY) -m saidl.cli report

notebooks: setup  ## execute the notebooks on the recorded results, as they are committed
	$(PY) -m tests.notebooks --inplace --recorded $(NOTEBOOKS)

test: setup lint  ## ruff, the test suite, and every notebook at the smoke profile
	$(PY) -m pytest
	SAIDL_PROFILE=smoke $(PY) -m tests.notebooks $(NOTEBOOKS)

test-oldest:  ## the test suite on the oldest packages that are supported (needs uv)
	uv venv --quiet --clear --python 3.10 .venv-oldest
	uv pip install --quiet --python .venv-oldest --resolution lowest-direct --requirements pyproject.toml --all-extras --group dev
	.venv-oldest/bin/python -m pytest -W ignore::DeprecationWarning  # old packages use what the newest of theirs deprecate

lint: setup  ## ruff, as CI runs it
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: setup  ## speed, as ratios against named baselines in one run (QUICK=1: shorter)
	$(PY) -m tests.benchmarks $(if $(QUICK),--quick)

bench-compare: setup  ## two saved benches side by side: make bench-compare A=old.json B=new.json
	$(PY) -m tests.benchmarks --compare $(A) $(B)

sweep: setup  ## run or continue a profile's queue, or one task's part: make sweep PROFILE=paper TASK=mnist-noise
	$(PY) -m saidl.cli sweep $(if $(PROFILE),--profile $(PROFILE)) $(if $(TASK),--task $(TASK))

report: setup  ## figures, tables and the PDF from the recorded results
	$(PY) -m saidl.cli report

readme: setup  ## put the recorded results into the README
	$(PY) -m tests.readme

lock:  ## pin the newest allowed packages again (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.10 --generate-hashes --all-extras --group dev \
	  --no-emit-index-url --no-annotate --no-header --upgrade --output-file requirements.lock

clean:  ## remove what was made, not your runs
	rm -rf .venv .venv-oldest report/generated .pytest_cache .ruff_cache .hypothesis
