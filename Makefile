# Every target installs what it needs in .venv, once: the core for `demo`'s first part, everything for the others.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast test-slow test-zoo lint verify-zoo docs live golden dist lock
demo: .venv/core
	$(BIN)/python examples/demo.py core
	@echo
	@echo "Next: PyTorch and TensorFlow, about 8 GB, to run the two programs above and compare them. Ctrl-C to stop here."
	@$(MAKE) --no-print-directory .venv/all
	$(BIN)/python examples/demo.py verify

test: .venv/all
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not zoo"

test-fast: .venv/all
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not zoo and not frameworks"

test-slow: .venv/all
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow

test-zoo: .venv/all
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m zoo

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
	.venv/release/bin/python -m build --no-isolation
	.venv/release/bin/twine check --strict dist/*
	.venv/release/bin/check-wheel-contents dist/*.whl

# The versions of everything that is installed below, with the hashes of their files. Versions stay as they are:
# `make lock LOCK=--upgrade` takes new ones, `LOCK="--upgrade-package NAME"` one.
lock: .venv/release
	cd requirements && $(COMPILE) -o all.txt ../pyproject.toml --all-extras --group ../pyproject.toml:install
	cd requirements && $(COMPILE) -o core.txt -c all.txt ../pyproject.toml --group ../pyproject.toml:install
	cd requirements && $(COMPILE) -o release.txt -c all.txt --group ../pyproject.toml:release

COMPILE = ../.venv/release/bin/uv pip compile $(LOCK) --quiet --universal --python-version 3.11.5 --generate-hashes \
	--no-annotate --custom-compile-command "make lock"
INSTALL = -m pip install --require-hashes --requirement
ARCHSPEC = -m pip install --quiet --no-deps --no-build-isolation --editable .

.venv/release: requirements/release.txt
	$(PYTHON) -m venv $@
	$@/bin/python $(INSTALL) requirements/release.txt --quiet
	touch $@

.venv/core: pyproject.toml requirements/core.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python $(INSTALL) requirements/core.txt --quiet
	$(BIN)/python $(ARCHSPEC)
	$(BIN)/python -m compileall -q archspec
	touch $@

.venv/all: .venv/core requirements/all.txt
	$(BIN)/python $(INSTALL) requirements/all.txt
	$(BIN)/python $(ARCHSPEC)
	touch $@
