# `make` alone lists the commands. PYTHON picks the interpreter that .venv is made with: PYTHON=python3.12 make up
PYTHON ?= python3
UV ?= uv
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.SILENT:
.PHONY: help up status release down test test-engine histories lint format plan preview bench lock install

RUN := .venv/bin/python -m
INSTALLED := .venv/.installed
REQUIREMENTS := requirements.txt requirements-dev.txt

help: ## List the commands
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

up: $(INSTALLED) ## Start the sandbox, deploy the local stack into it, update its devices
	$(RUN) sandbox up

status: $(INSTALLED) ## Show the sandbox: endpoints, the release, what each device runs
	$(RUN) sandbox status

release: $(INSTALLED) ## Ship another sample image to the sandbox: make release VERSION=2.2.0
	test -n "$(VERSION)" || { echo "Which version? make release VERSION=2.2.0" >&2; exit 2; }
	$(RUN) sandbox release "$(VERSION)"

down: $(INSTALLED) ## Stop the sandbox and remove all it left
	$(RUN) sandbox down

# One worker keeps one file's tests together, so that a sandbox is started once for all tests of its file.
test: $(INSTALLED) ## Run all tests; ARGS="-k rings" runs some of them
	$(RUN) pytest -n 2 --dist loadfile $(ARGS)

# Most of it is waiting for AWS's provider: each file has a worker of its own.
test-engine: $(INSTALLED) ## Test deployments with the Pulumi CLI that is on PATH; ALL=1 tests every change too (long)
	$(RUN) pytest -n 3 --dist loadfile $(if $(ALL),,-m "not long") tests/engine $(ARGS)

histories: $(INSTALLED) ## Play 10,000 random histories for the oracle: make histories N=1000 SEED=7
	N="$(N)" SEED="$(SEED)" $(RUN) tests.histories

lint: $(INSTALLED) ## Check style and types
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

format: $(INSTALLED) ## Format the code and mend what can be mended
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

plan: $(INSTALLED) ## Forecast a rollout from its stack file: make plan STACK=prod ARGS="--devices 100000"
	test -n "$(STACK)" || { echo "Which stack? make plan STACK=prod" >&2; exit 2; }
	$(RUN) forecast --stack "$(STACK)" $(ARGS)

preview: $(INSTALLED) ## Show what a deployment would change on AWS: make preview STACK=dev
	test -n "$(STACK)" || { echo "Which stack? make preview STACK=dev" >&2; exit 2; }
	command -v pulumi >/dev/null || { echo "make preview needs the Pulumi CLI: https://www.pulumi.com/docs/iac/download-install/" >&2; exit 1; }
	pulumi preview --stack "$(STACK)" --diff

bench: $(INSTALLED) ## Measure evaluation, graph, make up, update rate, 1,000 claims against their goals
	$(RUN) tests.bench

lock: ## Write requirements*.txt anew from requirements*.in (needs uv)
	command -v $(UV) >/dev/null || { echo "make lock needs uv: pipx install uv (or name it: make lock UV=path/to/uv)" >&2; exit 1; }
	for name in $(basename $(REQUIREMENTS)); do \
	  $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-annotate -o $$name.txt $$name.in || exit 1; \
	done

# Two makes at once (a second terminal) take turns: the lock is on this file, so that nothing is left behind.
TAKE_TURNS := import fcntl, subprocess, sys; turn = open(sys.argv[1]); fcntl.flock(turn, fcntl.LOCK_EX); sys.exit(subprocess.call(sys.argv[2:], close_fds=False))

$(INSTALLED): $(REQUIREMENTS)
	command -v $(PYTHON) >/dev/null || \
	  { echo "$(PYTHON) is not there. Install Python 3.11 or newer (Debian: apt install python3 python3-venv)." >&2; exit 1; }
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "`$(PYTHON) --version 2>&1` is too old. Install Python 3.11 or newer and name it: PYTHON=python3.12 make up" >&2; exit 1; }
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments. Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -c '$(TAKE_TURNS)' $(firstword $(MAKEFILE_LIST)) $(MAKE) install

# An environment without the mark, or whose Python is gone, is made from empty; one with an older mark is brought up to date.
install:
	.venv/bin/python -c 'import pip' 2>/dev/null || rm -f $(INSTALLED)
	[ -e $(INSTALLED) ] && [ ! requirements.txt -nt $(INSTALLED) ] && [ ! requirements-dev.txt -nt $(INSTALLED) ] && exit 0; \
	echo "Installing into .venv (once, and when the requirements change)"; \
	[ -e $(INSTALLED) ] || $(PYTHON) -m venv --clear .venv || exit 1; \
	rm -f $(INSTALLED) && \
	.venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt && \
	touch $(INSTALLED)

ifneq ($(shell .venv/bin/python -c 'print("runs")' 2>/dev/null),runs)
.PHONY: $(INSTALLED)
endif
