# Every target installs what it needs in .venv, once: the core for `demo`'s first part, everything for the others.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast test-slow lint verify-zoo docs live golden dist
demo: .venv/core
	$(BIN)/python examples/demo.py core
	@echo
	@echo "Next: PyTorch and TensorFlow, about 8 GB, to run the two programs above and compare them. Ctrl-C to stop here."
	@$(MAKE) --no-print-directory .venv/all
	$(BIN)/python examples/demo.py verify

test: .venv/all
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

test-fast: .venv/all
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not frameworks"

test-slow: .venv/all
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow

lint: .venv/all
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python scripts/lint_generated.py
	$(BIN)/python scripts/golden.py --check

verify-zoo: .venv/all
	$(BIN)/python scripts/verify_zoo.py

docs: .venv/all
	$(BIN)/python scripts/docs_site.py
	$(BIN)/zensical build --strict

live: .venv/all
	$(BIN)/python scripts/pyodide.py
	$(BIN)/archspec serve specs --static build/live --runtime build/pyodide

golden: .venv/all
	$(BIN)/python scripts/golden.py

dist: .venv/release
	rm -rf dist
	.venv/release/bin/python -m build
	.venv/release/bin/twine check --strict dist/*
	.venv/release/bin/check-wheel-contents dist/*.whl

.venv/release: pyproject.toml constraints.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --constraint constraints.txt build check-wheel-contents twine
	touch $@

.venv/core: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	$(BIN)/python -m compileall -q archspec
	touch $@

.venv/all: .venv/core
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[all,dev]'
	touch $@
