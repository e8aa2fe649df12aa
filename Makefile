# Everything a developer says to this repository. Each target prepares what it
# needs by itself; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help demo test check lint chaos chaos-queues bench docs clean setup setup-test setup-bench
.NOTPARALLEL:

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

demo: setup ## Deploy a small web server under load, and see that nothing is lost
	@$(BIN)/sengu demo

test: setup-test lint ## Run everything: style, types and all tests (minutes)
	@# Once for the thousands of processes that tests start, which are to write no bytecode.
	@$(BIN)/python -m compileall -q src tests
	@$(PYTEST) -n 3 --dist loadscope

check: setup lint ## Run what needs no other program: style, types, pure tests (a minute)
	@$(PYTEST) -q tests/unit tests/architecture

chaos: setup ## Kill 2000 processes under load, and account for everything; ARGS="--seed 1"
	@$(BIN)/python -m tests.chaos $(ARGS)

chaos-queues: setup-test ## The same to queue consumers and their broker: 100 000 messages; ARGS="--seed 1"
	@$(BIN)/python -m tests.queue_chaos $(ARGS)

bench: setup-bench ## Measure sengu beside the programs that it replaces
	@$(BIN)/python -m bench

docs: setup ## Write the reference pages from the settings
	@$(BIN)/python tools/make_docs.py

clean: ## Remove all that the other targets made
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

lint: setup
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary

setup:
	@tools/setup.sh dev

setup-test:
	@tools/setup.sh --apt=test dev

setup-bench:
	@tools/setup.sh --apt=test --apt=bench dev bench --try=bench-compiled
