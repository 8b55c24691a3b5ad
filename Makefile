# `make` lists the targets. Every target that needs the environment sets it up first; all are safe to repeat.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# How .venv is made: see requirements/install.sh.
PYTHON ?=
TORCH ?=
TORCH_INDEX ?=
# Jobs (and test processes) at a time, and GPUs they may share; 0 GPUs runs the same jobs on the CPU.
CORES ?= 2
GPUS ?= $(shell nvidia-smi -L 2>/dev/null | grep -c '^GPU ' || true)

# Jobs find a GPU by themselves, so who says 0 must hide it; where none was counted, they may still find one.
ifneq ($(origin GPUS),file)
ifeq ($(GPUS),0)
export CUDA_VISIBLE_DEVICES :=
endif
endif

python := .venv/bin/python
snakemake := $(python) -m snakemake
# Device to forecast for, as records name it; empty: as measured.
DEVICE ?=
export PYTHON TORCH TORCH_INDEX
export PYTHONUNBUFFERED := 1
# Tools of .venv come first for whatever the workflow starts.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help setup demo test lint audit bench paper forecast lock clean

help:  ## list the targets
	@echo "Usage: make TARGET [PYTHON=python3.12] [TORCH_INDEX=https://download.pytorch.org/whl/cpu] [CORES=2] [GPUS=0]"
	@echo
	@sed -nE 's/^([a-z]+):.*## (.*)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | column -t -s '|' 2>/dev/null \
	  || sed -nE 's/^([a-z]+):.*## (.*)/  \1  \2/p' $(firstword $(MAKEFILE_LIST))

setup:  ## build .venv from the lock files, if it is not there and current
	@requirements/install.sh

demo: setup  ## run the whole workflow in miniature on MovieLens-100K: minutes on two CPU cores
	@echo "demo: running the workflow on MovieLens-100K with $(CORES) cores and $(GPUS) GPUs"
	$(snakemake) --cores $(CORES) --resources gpu=$(GPUS) --configfile config/demo.yaml
	@$(python) -m analysis.summary --tables results/demo/tables --report results/demo/report.html
	@echo "demo: everything works; after so few epochs these figures are no results"

test: setup  ## run all tests
	@echo "test: running all tests in $(CORES) processes"
	OMP_NUM_THREADS=1 $(python) -m pytest -q -n $(CORES) --dist worksteal --durations 10

lint: setup  ## check style of Python and Snakemake files
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m snakefmt --check Snakefile workflow
	@echo "lint: what follows is advice; workflow/rules say why where it is not taken"
	-$(snakemake) --lint

audit: setup  ## check the paper's printed numbers: seconds, no training
	@echo "audit: checking the paper's tables"
	$(python) -m analysis.audit paper --out results/audit

bench: setup  ## measure the fast paths against the plain ones
	@echo "bench: running benchmarks/, each prints its figures"
	$(python) -m benchmarks

forecast: setup  ## say what the full paper run will cost, without running it (DEVICE=name: on that device)
	$(python) -m workflow.scripts.forecast $(if $(DEVICE),--device '$(DEVICE)')

paper: CORES = 8
paper: setup  ## run every dataset, method and seed of the paper; run again to resume
	@echo "paper: running config/config.yaml with $(CORES) cores and $(GPUS) GPUs; run it again to resume"
	$(snakemake) --cores $(CORES) --resources gpu=$(GPUS)

lock:  ## write the lock files anew from pyproject.toml (UPGRADE=1: newest releases)
	@requirements/lock.sh

clean:  ## remove .venv and caches; downloads and results stay
	@echo "clean: removing .venv and caches"
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
