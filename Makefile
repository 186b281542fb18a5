# `make demo` and `make test` set up everything they need in .venv, once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint golden
demo: .venv/installed
	$(BIN)/python examples/demo.py

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: .venv/installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

golden: .venv/installed
	$(BIN)/archspec generate
	$(BIN)/archspec generate specs/alexnet.yaml --target torch --placement two-tower

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[all,dev]'
	$(BIN)/python -m compileall -q archspec
	touch $@
