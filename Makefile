# Needs make and Python 3.11 or later with its venv module. Everything else is put into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
DRIVERS := $(VENV)/.stamp-drivers
NODE := $(VENV)/node
FUZZER := $(VENV)/.stamp-fuzz
PLOTTER := $(VENV)/.stamp-bench
FUZZ_SECONDS ?= 60
FIRST_RINGS ?= tests/protocol tests/proxy tests/fuzz tests/bench $(wildcard tests/test_*.py)
WORKERS ?= 4
SOURCES := proxy protocol deploy tests
# Each file of tests is one worker's, from its first test to its last (see tests/hall.py). More workers than processors:
# the live tests mostly wait.
PYTEST := $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder

# The live tests start the proxy hundreds of times, and compiling it takes longer than all else at a start.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help run test check bench fuzz clean

help:
	@echo "make run     a local PostgreSQL and the proxy in front of it, until Ctrl-C"
	@echo "make test    all tests"
	@echo "make check   format, lint, types, and the tests that need no PostgreSQL"
	@echo "make bench   compare with PostgreSQL alone and with PgBouncer (BENCH=\"--quick\": more options)"
	@echo "make fuzz    hunt every parser for FUZZ_SECONDS ($(FUZZ_SECONDS)) each, as many at a time as there are processors"
	@echo "make clean   remove what the others made, the local cluster too"
	@echo "WORKERS=...  how many processes run the tests ($(WORKERS))"
	@echo "PYTHON=...   the Python to build .venv with ($(PYTHON))"

# The stamp comes last: an interrupted build is begun anew. The project itself is installed for its dependencies and its
# command, editable, so that a change of the code needs no new build.
# python-ldap has no wheels: where the headers of libldap are missing its tests say so and are skipped.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; say which: make PYTHON=python3.12 ..." >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,check]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[ldap]' >$(VENV)/ldap.log 2>&1 || \
		echo "python-ldap cannot be built here (Debian: libldap-dev libsasl2-dev gcc): the tests of LDAP will be skipped"
	touch $@

# The drivers that the tests use, for Python and for node. Without npm there is no node driver, and make asks again
# next time; the tests say what they miss.
$(DRIVERS): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[drivers]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps prometheus-pgbouncer-exporter
	touch $@

$(NODE)/.stamp: tests/live/clients/node/package.json $(STAMP)
	@mkdir -p $(NODE)
	cp $< $(NODE)/
	@if command -v npm >/dev/null; then \
		npm install --prefix $(NODE) --no-package-lock --no-audit --no-fund --silent && touch $@; \
	else echo "no npm: the tests of node's drivers will be skipped"; fi

run: $(STAMP)
	@$(BIN)/python -m deploy.local run

test: $(STAMP) $(DRIVERS) $(PLOTTER) $(NODE)/.stamp
	$(PYTEST)

check: $(STAMP)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy --strict proxy protocol deploy
	$(if $(FIRST_RINGS),$(PYTEST) -q $(FIRST_RINGS))

# Without matplotlib the bench draws no picture, and says so.
$(PLOTTER): $(STAMP)
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	touch $@

bench: $(PLOTTER)
	$(BIN)/python -m tests.bench $(BENCH)

# Where there is no atheris for this Python or system, a mutator without a guide hunts instead (tests/fuzz/hunt.py).
$(FUZZER): $(STAMP)
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	touch $@

fuzz: $(FUZZER)
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

# The cluster may keep its data under another folder: the link `elsewhere` says which (see deploy/place.py).
clean:
	rm -rf "$$(readlink -f .local/elsewhere 2>/dev/null || echo .local)" .local
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
