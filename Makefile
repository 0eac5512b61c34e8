# Every target that needs Python builds .venv first, so any of them can be the first command in a fresh clone.

PRESET ?= quick
SEEDS ?= 1
DEVICE ?= auto
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); [ "$$n" -gt 8 ] && n=8; echo $$n)
SCHEDULER ?=
DATASET ?=
PORT ?= 8000

BIN := .venv/bin
INSTALLED := .venv/.installed
export PYTHONUNBUFFERED := 1
export PYTHONUTF8 := 1
# By default a thread that waits for others spins. On a busy machine that takes the time of those it waits for: with two other
# processes on two cores, a small convolutional network trained four times more slowly; on a quiet one, spinning gains a tenth.
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup reproduce reproduce-table1 reproduce-table2 reproduce-table3 reproduce-table4 ablations gallery tables book pdf serve test lint pytest nbval mutants cluster-test bench lock clean

help: ## list the targets
	@echo "make TARGET [VARIABLE=value ...]"
	@echo
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'
	@echo
	@echo "Variables of the reproduce targets, with their defaults:"
	@echo "  PRESET=quick         smoke, quick, paper (not Table 1) or converged; the last two are published"
	@echo "  SEEDS=1              number of seeds; SEEDS=5 runs seeds 0 to 4"
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
	@echo "setup: installing requirements.lock into .venv (the first time this downloads PyTorch: some minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# $(call reproduce,NOTEBOOK,TABLE)
reproduce = $(BIN)/python -m uram_lib.notebook notebooks/$(1).ipynb --table $(2) -p preset '$(PRESET)' -p seeds '$(SEEDS)' \
  -p device '$(DEVICE)' -p jobs '$(JOBS)' -p dataset '$(DATASET)' -p scheduler '$(SCHEDULER)'

reproduce: reproduce-table1 reproduce-table2 reproduce-table3 reproduce-table4 ## reproduce every table that exists

reproduce-table1: $(INSTALLED) ## train the rows of Table 1 (MNIST) and show paper, published and yours side by side
	@$(call reproduce,10_table1,table1)

reproduce-table2: $(INSTALLED) ## the same for Table 2 (cluttered MNIST), the paper's main experiment
	@$(call reproduce,20_table2,table2)

reproduce-table3: $(INSTALLED) ## the same for Table 3 (whole numbers), on generated ones; DATASET=svhn for real ones
	@$(call reproduce,30_table3,table3)

reproduce-table4: $(INSTALLED) ## the same for Table 4 (VGG16 with attention under attack), with slim networks
	@$(call reproduce,40_table4,table4)

# The seeds as `uram run` takes them.
run_arguments = --preset '$(PRESET)' --seeds "0-$$(($(SEEDS) - 1))" --jobs '$(JOBS)' --device '$(DEVICE)'
whole_seeds = case '$(SEEDS)' in ''|0*|*[!0-9]*) echo "SEEDS must be a whole number from 1 on, got '$(SEEDS)'" >&2; exit 1;; esac

ablations: $(INSTALLED) ## train the rows of Table 2 and their arms, and show what each single decision does
	@$(whole_seeds)
	@$(BIN)/uram run table2 $(run_arguments)
	@$(BIN)/uram run ablations $(run_arguments)
	@$(BIN)/python -m uram_lib.notebook notebooks/50_ablations.ipynb -p preset '$(PRESET)' -p seeds '$(SEEDS)'

gallery: $(INSTALLED) ## look at published models at work, glimpse by glimpse
	@$(BIN)/python -m uram_lib.notebook notebooks/60_gallery.ipynb -p device '$(DEVICE)'

tables: $(INSTALLED) ## rebuild results/tables, results/claims.csv and the README's table from the run records
	@$(BIN)/uram tables
	@$(BIN)/python -m uram_lib.pages --readme

book: $(INSTALLED) ## build the book into _build/html; any warning is an error
	@$(BIN)/python -m uram_lib.pages
	@rm -f _build/.strict
	@$(BIN)/jupyter-book build . --all -n -W --keep-going
	@touch _build/.strict

pdf: book ## print the built book into _build/uram.pdf (needs Chromium; about a minute)
	@$(BIN)/python -m uram_lib.pdf

serve: book ## build the book and serve it on localhost (PORT=8000)
	@echo "http://localhost:$(PORT)/ (Ctrl-C stops)"
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

test: lint book nbval pytest ## everything CI checks: lint, strict book build, notebooks, tests

lint: $(INSTALLED) ## check style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

pytest: $(INSTALLED) ## run the tests alone
	@$(BIN)/python -m pytest

nbval: $(INSTALLED) ## run every notebook and compare its checked cells
	@$(BIN)/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout 900 notebooks

mutants: $(INSTALLED) ## put known bugs into copies of the library and show which test notices each (minutes)
	@$(BIN)/python tests/mutants.py --jobs $(JOBS)

cluster-test: $(INSTALLED) ## start a real Dask cluster, kill a worker in mid-run, and count the finished runs
	@$(BIN)/python -m pytest tests/test_cluster.py

bench: $(INSTALLED) ## measure training speed
	@$(BIN)/python -m uram_lib.bench

lock: $(INSTALLED) ## re-derive requirements.lock from pyproject.toml, keeping the pins that still fit (needs uv)
	@command -v uv >/dev/null || { echo "lock: uv is not installed (pip install uv)" >&2; exit 1; }
	uv pip compile pyproject.toml --extra book --extra test --extra cluster --universal --python-version 3.11.5 --no-annotate --no-header -q -o requirements.lock

clean: ## remove the built book and caches; your runs in results/local, data and .venv stay
	rm -rf _build book/_generated .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
