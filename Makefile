# Every command works on a fresh checkout: it makes .venv, installs what it needs once, and runs.
# Needed: Python 3.11 or newer with venv, make. No compiler: everything comes as a wheel.
# Choose the Python with: make demo PYTHON=python3.13

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; exit; }; done; echo python3)
VENV := .venv
BIN := $(VENV)/bin/python

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_USER := 0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo serve test chaos contract proof cuts drills hosts coverage lint format types docs bench growth latency bench-space bench-start bench-upgrade bench-worker dist release-check ci clean

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

setup: $(VENV)/.installed-dev ## set up .venv for working on the package

demo: $(VENV)/.installed-demo ## play real callbacks at the example app, and show what became of them (ARGS=--verbose: each)
	@$(BIN) -m example_app.demo $(ARGS)

serve: $(VENV)/.installed-demo ## run the example app until Ctrl-C (CREATOR=simulator: with a creator to submit to)
	@$(BIN) -m example_app.serve

test: $(VENV)/.installed-test ## run all tests (options: make test ARGS="-k name -x")
	$(BIN) -m pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder $(ARGS)

chaos: $(VENV)/.installed-test ## run the tests of kills, outages and races at their full sizes, half an hour
	CHAOS_VARIANTS=1 SOAK_TASKS=2000 CHAOS_ROUNDS=20 CHAOS_CALLBACKS=1000 CHAOS_KILLS=20 CHAOS_OUTAGE=5 CHAOS_CUTS=12 \
		$(BIN) -m pytest tests/chaos -rP $(ARGS)

proof: $(VENV)/.installed-test ## go through every state, order and crash of a small world (ARGS="model --slice")
	@$(BIN) -m tests.proof $(ARGS)

contract: $(VENV)/.installed-test ## send 10,000 requests, as docs/openapi.json describes them and otherwise, to a real server
	CONTRACT_CASES=800 $(BIN) -m pytest tests/integration/test_contract.py -rP --timeout 3600 $(ARGS)

cuts: $(VENV)/.installed-test ## kill upgrades and downgrades at every statement, and compare (ARGS="--database mariadb old")
	@$(BIN) -m tests.migration.cuts $(ARGS)

drills: $(VENV)/.installed-test ## take parts of a running installation away, and show what an operator meets (ARGS=database-away)
	@$(BIN) -m tests.drills $(ARGS)

hosts: $(VENV)/.installed-test ## run the tests of every shape of host with the lowest and the newest SQLAlchemy
	.ci/hosts

coverage: $(VENV)/.installed-test ## run all tests and show which lines and branches they miss
	$(BIN) -m pytest --cov --cov-report=term-missing:skip-covered $(ARGS)

lint: $(VENV)/.installed-dev ## check style and common mistakes
	$(BIN) -m ruff check
	$(BIN) -m ruff format --check

format: $(VENV)/.installed-dev ## put the code into the form that lint wants
	$(BIN) -m ruff check --fix
	$(BIN) -m ruff format

types: $(VENV)/.installed-dev ## check the types
	$(BIN) -m mypy

docs: $(VENV)/.installed-docs ## build the documentation into docs/_build/html
	$(BIN) -m sphinx --builder html --fail-on-warning --keep-going --quiet docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

screenshots: $(VENV)/.installed-test ## draw the pictures of the history pages anew (needs a Chromium; .ci/browser installs one)
	@PYTHONPATH=. $(BIN) docs/screenshots.py

bench: $(VENV)/.installed-bench ## measure against floors written by hand (ARGS=--quick: a look; ARGS=--profile)
	@$(BIN) -m benchmarks $(ARGS)

growth: $(VENV)/.installed-bench ## measure a callback as the tables grow to 1,000,000 rows, and show the query plans
	@$(BIN) -m benchmarks.growth $(ARGS)

latency: $(VENV)/.installed-bench ## measure the time from acceptance to effect (ARGS="--mode celery")
	@$(BIN) -m benchmarks.latency $(ARGS)

bench-worker: $(VENV)/.installed-bench ## measure what a worker applies against a loop by hand (ARGS="--databases sqlite")
	@$(BIN) -m benchmarks.drain $(ARGS)

bench-start: $(VENV)/.installed-bench ## measure what the extension adds to the start of a process
	@$(BIN) -m benchmarks.start $(ARGS)

bench-space: $(VENV)/.installed-bench ## measure the bytes that a settled task and its delivery take
	@$(BIN) -m benchmarks.space $(ARGS)

bench-upgrade: $(VENV)/.installed-test ## upgrade a table in use, and show who waits (ARGS="--database mariadb --rows 100000")
	@$(BIN) -m benchmarks.upgrade $(ARGS)

dist: $(VENV)/.installed-release ## build the sdist and the wheel into dist, and look at them
	rm -rf dist
	$(BIN) -m build --outdir dist
	$(BIN) -m twine check --strict dist/*
	$(BIN) .ci/check_archives.py dist

release-check: dist ## install what was built, with the lowest and the newest versions, on every Python that is here
	.ci/release $(ARGS)

ci: ## everything that CI runs
	@.ci/run

clean: ## remove .venv, caches and build output
	rm -rf $(VENV) build dist *.egg-info docs/_build htmlcov .coverage .coverage.* .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN):
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
		echo "There is no command '$(PYTHON)'. Install Python 3.11 or newer, or name yours: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Name a newer one: make PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
		echo "'$(PYTHON) -m venv' failed; see above. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# One stamp for each extra; a change of the dependencies installs again.
$(VENV)/.installed-%: pyproject.toml flask_contenthub_webhook/_version.py | $(BIN)
	@echo "Installing flask-contenthub-webhook[$*] into $(VENV) (once)..."
	@$(BIN) -m pip install --quiet --prefer-binary --editable '.[$*]'
	@touch $@
