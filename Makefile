# Every target that needs Python builds .venv first, so any of them can be the first command in a fresh clone.

PRESET ?= quick
SEEDS ?= 1
ROWS ?=
DEVICE ?= auto
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); [ "$$n" -gt 8 ] && n=8; echo $$n)
SCHEDULER ?=
DATASET ?=
PORT ?= 8000

# A variable that is misspelt or in lower case would be ignored without a word.
KNOWN := PRESET SEEDS ROWS DEVICE JOBS SCHEDULER DATASET PORT PYTHON MAKEFLAGS SHELL
GIVEN := $(strip $(foreach v,$(.VARIABLES),$(if $(filter command%,$(origin $v)),$v)))
UNKNOWN := $(filter-out $(KNOWN) -*-command-variables-*-,$(GIVEN))
ifneq ($(UNKNOWN),)
$(error unknown variable $(UNKNOWN); one of: PRESET, SEEDS, ROWS, DEVICE, JOBS, SCHEDULER, DATASET, PORT, PYTHON, in capitals)
endif

BIN := .venv/bin
INSTALLED := .venv/.installed
export PYTHONUNBUFFERED := 1
export PYTHONUTF8 := 1
# By default a thread that waits for others spins. On a busy machine that takes the time of those it waits for.
export OMP_WAIT_POLICY ?= passive
# Memory in pages of 2 MB, where the C library is glibc: training and the tests are faster by it.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup reproduce reproduce-table1 reproduce-table2 reproduce-table3 reproduce-table4 readings gallery lab tables book pdf serve test lint pytest nbval mutants cluster-test bench lock clean

help: ## list the targets
	@echo "make TARGET [VARIABLE=value ...]"
	@echo
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'
	@echo
	@echo "Variables of the reproduce targets, with their defaults:"
	@echo "  PRESET=quick         smoke, quick, paper or strong; the last two are what is published"
	@echo "  SEEDS=1              how many (3 means seeds 0 to 2), or which: 0,2,5 or 4-9"
	@echo "  ROWS=                rows with commas between them, or all; the preset's choice when empty"
	@echo "  DEVICE=auto          auto, cpu, cuda or mps"
	@echo "  JOBS=$(JOBS)               runs at a time"
	@echo "  DATASET=             another data set than the preset's own; digits (digits-composed) needs no download"
	@echo "  SCHEDULER=           address of a Dask cluster"

setup: $(INSTALLED) ## build .venv from requirements.lock (instant when it is up to date)

$(INSTALLED): requirements.lock pyproject.toml
	@found=; for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo "setup: no Python 3.11.5 or newer found; install one, or name it: make setup PYTHON=/path/to/python3" >&2; exit 1; fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "setup: making .venv with $$($$found --version)"; \
	  "$$found" -m venv --clear .venv || { echo "setup: $$found cannot make a virtual environment (on Debian: install python3-venv)" >&2; exit 1; }; \
	fi
	@echo "setup: installing requirements.lock into .venv: some minutes, and about 7 GB on Linux, where PyTorch brings CUDA."
	@echo "setup: smaller: conda env create -f environment.yml, which takes PyTorch for the processor alone."
	@{ $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -r requirements.lock; echo $$? > .venv/.status; } \
	  | sed -un 's/^Collecting \([^ ]*\).*/setup: fetching \1/p; s/^Installing collected packages.*/setup: installing what was fetched (the longest part)/p'; \
	  exit $$(cat .venv/.status)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# $(call reproduce,WHAT): notebooks of the book, run with the reader's choices.
reproduce = echo '$@: loading PyTorch'; $(BIN)/python -m uram_book $(1) --preset '$(PRESET)' --seeds '$(SEEDS)' --rows '$(ROWS)' \
  --device '$(DEVICE)' --jobs '$(JOBS)' --dataset '$(DATASET)' --scheduler '$(SCHEDULER)'

reproduce: reproduce-table1 reproduce-table2 reproduce-table3 reproduce-table4 ## reproduce all four tables

reproduce-table1: $(INSTALLED) ## re-test the published models of Table 1 (MNIST), then train here and compare
	@$(call reproduce,table1)

reproduce-table2: $(INSTALLED) ## the same for Table 2 (cluttered MNIST), the paper's main experiment
	@$(call reproduce,table2)

reproduce-table3: $(INSTALLED) ## the same for Table 3 (whole numbers), on generated ones; DATASET=svhn for real ones
	@$(call reproduce,table3)

reproduce-table4: $(INSTALLED) ## the same for Table 4 (VGG16 with attention under attack), with slim networks
	@$(call reproduce,table4)

readings: $(INSTALLED) ## redraw the chapter on readings; PRESET=paper or quick trains what is missing first
	@$(call reproduce,readings) $(if $(filter-out file,$(origin PRESET)),--train)

gallery: $(INSTALLED) ## look at published models at work, glimpse by glimpse
	@$(call reproduce,gallery)

lab: $(INSTALLED) ## open JupyterLab at the lessons
	@$(BIN)/jupyter lab notebooks

tables: $(INSTALLED) ## rebuild results/tables, results/claims.csv and the README's table from the run records
	@$(BIN)/python -m uram_book.tables
	@$(BIN)/python -m uram_book.pages --readme

book: $(INSTALLED) ## build the book into _build/html; any warning is an error
	@$(BIN)/python -m uram_book.pages
	@rm -f _build/.strict
	@$(BIN)/jupyter-book build . --all -n -W --keep-going
	@touch _build/.strict

pdf: book ## print the built book into _build/uram.pdf (needs Chromium; about a minute)
	@$(BIN)/python -m uram_book.pdf

serve: book ## build the book and serve it on localhost (PORT=8000)
	@echo "http://localhost:$(PORT)/ (Ctrl-C stops)"
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

test: lint book nbval pytest ## everything CI checks: lint, strict book build, notebooks, tests

lint: $(INSTALLED) ## check style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

pytest: $(INSTALLED) ## run the tests alone
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

nbval: $(INSTALLED) ## run every notebook and compare its checked cells
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout 900 -n $(JOBS) --dist loadfile notebooks

mutants: $(INSTALLED) ## put known bugs into copies of the library and show which test notices each (minutes)
	@$(BIN)/python tests/mutants.py --jobs $(JOBS)

cluster-test: $(INSTALLED) ## start a real Dask cluster, kill a worker in mid-run, and count the finished runs
	@$(BIN)/python -m pytest tests/test_cluster.py

bench: $(INSTALLED) ## measure training speed, in ratios within one run
	@$(BIN)/python -m uram_book.bench

lock: $(INSTALLED) ## re-derive requirements.lock from pyproject.toml, keeping the pins that still fit (needs uv)
	@command -v uv >/dev/null || { echo "lock: uv is not installed (pip install uv)" >&2; exit 1; }
	uv pip compile pyproject.toml --extra book --extra test --extra cluster --extra lab --universal --python-version 3.11.5 --no-annotate --no-header -q -o requirements.lock

clean: ## remove the built book and caches; your runs in results/local, data and .venv stay
	rm -rf _build book/_generated .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
