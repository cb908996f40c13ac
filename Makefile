# Everything runs in .venv, which the first target that needs it creates. 'make help' lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-boards test-training test-kernels tools lint clean

PYTHON ?= $(shell command -v python3.11 || echo python3)
BIN := .venv/bin
DEMO_ARGS ?= --model demo:transformer --device local --max-drop 0.5 --measurements 16
PYTEST_ARGS ?= -n 2 --dist worksteal
KERNEL_SHAPES ?= 72
BOARD_TESTS ?= tests/aarch64

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: .venv/.installed ## search the demo network on this machine (the arguments: DEMO_ARGS)
	$(BIN)/orchestrator search $(DEMO_ARGS)

test: tools lint ## lint, then run all tests (pytest's arguments: PYTEST_ARGS)
	$(BIN)/pytest $(PYTEST_ARGS)

test-boards: .venv/.installed ## search on an emulated aarch64 board (needs root: docs/test-boards.md; which tests: BOARD_TESTS)
	PYTHONDONTWRITEBYTECODE=1 $(BIN)/pytest -p no:cacheprovider -m boards $(BOARD_TESTS)

test-training: .venv/.installed ## train the three demo networks anew and compare (up to half an hour)
	$(BIN)/pytest -m training -s tests/recipes/test_demo.py

test-kernels: .venv/.installed ## kernels of tvm on 1,000 random shapes, bit by bit (72 of each kind: KERNEL_SHAPES)
	$(BIN)/pytest $(PYTEST_ARGS) --kernel-shapes $(KERNEL_SHAPES) -k 'integers or signs' tests/recipes/tvm/test_kernels.py

tools:
	@PATH="$$PATH:/usr/sbin:/sbin" command -v sshd >/dev/null || { \
	  echo "make test: the tests need sshd, run 'sudo apt-get install openssh-server'" >&2; exit 1; }
	@test -d /usr/share/datasets/fashion-mnist || echo "make test: the two demo tests that read the original" \
	  "images will fail, run 'sudo apt-get install dataset-fashion-mnist'" >&2

lint: .venv/.installed ## check style, types and who imports whom
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## remove .venv, builds and caches
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip of Python 3.11 (23.x) backtracks for minutes over these requirements; pip 26 resolves them in seconds.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  echo "make: Python 3.11, 3.12 or 3.13 is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing)." \
	    "Run 'sudo apt-get install python3.11 python3.11-venv', or 'make PYTHON=/path/to/python3.11 ...'" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) cannot create environments," \
	    "run 'sudo apt-get install $$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')'" \
	    >&2; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "make: installing into .venv, about 2.5 GB and a minute or more"
	$(BIN)/python -m pip install -qq --upgrade 'pip>=26'
	$(BIN)/python -m pip install -qq --editable '.[tflite,tvm,onnx,postgres,power,dev]' --constraint constraints.txt
	@touch $@
