# make demo and make test are all a newcomer needs. Each target sets up .venv by itself;
# the recipes are plain pip and can be run by hand, line by line.

PYTHON ?= python3
BIN := .venv/bin
PACKAGES := -e . -e transports/asyncio -e cli
PROJECTS := pyproject.toml transports/asyncio/pyproject.toml cli/pyproject.toml

.PHONY: demo test lint types bench clean

demo: .venv/installed
	$(BIN)/packetcore demo

test: .venv/ready
	$(BIN)/pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy

bench: .venv/ready
	$(BIN)/python benchmarks/codec.py
	$(BIN)/python benchmarks/echo.py
	$(BIN)/python benchmarks/pool.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/pip $(PROJECTS)
	$(BIN)/pip install --quiet $(PACKAGES)
	touch $@

.venv/ready: .venv/installed requirements-dev.txt
	$(BIN)/pip install --quiet -r requirements-dev.txt
	touch $@
