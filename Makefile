# `make` alone lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?=
PYTHONS = $(if $(PYTHON),"$(PYTHON)",python3.11 python3.12 python3.13 python3)
VENV ?= .venv
BIN = $(if $(filter /%,$(VENV)),,$(CURDIR)/)$(VENV)/bin
AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: help environment data repro explore bench gpu mutants soak coverage test check smoke

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */  make \1\t/' | expand -t 22

environment: ## make .venv with the locked packages, if that is not done
	@for python in $(PYTHONS) "$(BIN)/python"; do \
	  if "$$python" -I -c '' 2> /dev/null; then exec "$$python" -I rrn/environment.py "$(VENV)" $(PYTHONS); fi; \
	done; \
	needed=$$(sed -n 's/^requires-python = "\(.*\)"/\1/p' pyproject.toml); \
	echo "error: there is no Python $(or $(PYTHON),at all) that runs; Python $$needed is needed: name one," \
	  "\`make environment PYTHON=...\`" >&2; exit 1

data: environment ## fetch the embedded data
	"$(BIN)/python" -m rrn.fetch

repro: environment ## fetch the embedded data, run all stages, fill results/
	"$(BIN)/python" -m rrn.repro

explore: environment ## see in a browser which pseudo-labels are kept, and whether they are right
	"$(BIN)/jupyter" lab --ip=127.0.0.1 $(AS_ROOT) notebooks/explore_pseudo_labels.ipynb

bench: environment ## measure speed and memory beside the rivals, hours on a quiet machine; ONLY='rivals memory': some
	"$(BIN)/python" benchmarks/run.py $(ONLY)

gpu: environment ## measure a GPU in 8 minutes, in results/gpu; ARGUMENTS='--small --out scratch/gpu': docs/gpu.md
	"$(BIN)/python" benchmarks/gpu.py $(or $(ARGUMENTS),--out results/gpu)

mutants: environment ## do the tests notice wrong code? an hour; ONLY='rrn/evaluation/metrics.py rrn/method.py': these modules
	OMP_NUM_THREADS=1 "$(BIN)/python" benchmarks/mutants.py $(ONLY)

soak: environment ## is anything lost when a training is killed, twenty times and more? some minutes, in scratch/soak
	PYTHONPATH=. "$(BIN)/python" benchmarks/soak.py

coverage: environment data ## which lines of rrn/ does no test execute, in whatever process? a quarter of an hour
	rm -rf scratch/coverage && mkdir -p scratch/coverage
	status=0; "$(BIN)/coverage" run -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile || status=$$?; \
	"$(BIN)/coverage" combine --quiet && "$(BIN)/coverage" report && exit $$status

test: check data ## every check and test
	"$(BIN)/python" -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

check: environment ## lint, format, types, notebooks stripped
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"
	"$(BIN)/python" -m rrn.strip --check notebooks

smoke: environment ## the whole chain on a tiny preset, in a copy: scratch/smoke
	rm -rf scratch/smoke && mkdir -p scratch/smoke
	git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --create --ignore-failed-read | tar -x -C scratch/smoke
	cd scratch/smoke && git init --quiet && "$(BIN)/python" -m rrn.preset smoke && "$(BIN)/python" -m rrn.repro
