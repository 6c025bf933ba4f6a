# `make test` and `make demo` do their own set-up: a machine with Python 3.11 or later is all they need.

# Without bytecode on disk every start of Dagster takes a second longer.
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME

CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
RECENT := import sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for one in $(CANDIDATES); do $$one -c '$(RECENT)' 2>/dev/null && { echo $$one; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OURS := chrono_backups chrono_backups_tests benchmarks demo
PORT ?= 3000
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup servers test soak oracle lint format demo ui bench bench-redis bench-storages bench-meilisearch \
	bench-postgres screenshots pins clean

help:  ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

setup: $(READY)  ## Make .venv with everything pinned (the others do it by themselves)

$(READY): requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or later is needed, and none of $(CANDIDATES) is one" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q $(OURS)
	@touch $(READY)

servers: $(READY)  ## Install the servers that the tests start (as root; else it says what is missing)
	@scripts/test_servers.sh

test: lint servers  ## Lint, then every test (ARGS="-k name -x" goes to pytest)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not soak" $(ARGS)

soak: $(READY) servers  ## The tests that take minutes: crash loops, random moments, storages that fail under load
	EXPLORE=1 $(BIN)/python -m pytest -m soak $(ARGS)

oracle: $(READY)  ## Restore a cluster to 20 random moments of a bad day (ARGS="--seconds 300 --moments 50 --seed 1")
	$(BIN)/python -m chrono_backups_tests.recovery.postgres.oracle $(ARGS)

lint: $(READY)  ## Style, types and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(READY)  ## Let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(READY)  ## Back up a small site through Dagster, restore, compare, serve the UI (PORT=3000; ONCE=1: end instead)
	$(BIN)/python -m demo --port $(PORT) $(if $(filter-out 0,$(ONCE)),--once)

ui: $(READY)  ## Serve the Dagster UI for the settings in .env (PORT=3000)
	@mkdir -p .dagster && cp dagster.yaml .dagster/
	@export DAGSTER_HOME="$(CURDIR)/.dagster" PATH="$(CURDIR)/$(BIN):$$PATH"; \
	dagster-daemon run & trap "kill $$! 2>/dev/null" EXIT; trap "exit 130" INT TERM; \
	dagster-webserver --host 127.0.0.1 --port $(PORT)

bench: $(READY)  ## Measure against restic, borg and tar | zstd (ARGS="--scale 0.1 --rounds 1")
	$(BIN)/python -m benchmarks files $(ARGS)

bench-redis: $(READY) servers  ## Measure Redis against redis-cli and a server's own loading (ARGS="--keys 100000 --rounds 1")
	$(BIN)/python -m benchmarks.redis $(ARGS)

bench-storages: $(READY) servers  ## Measure S3, SFTP and replication against rclone, boto3 and OpenSSH's sftp (ARGS="--rounds 1")
	@scripts/bench_tools.sh
	$(BIN)/python -m benchmarks.storages_s3 $(ARGS)
	$(BIN)/python -m benchmarks.storages_sftp $(ARGS)
	$(BIN)/python -m benchmarks.storages_replicate $(ARGS)

bench-meilisearch: $(READY)  ## Measure Meilisearch's captures and restores (ARGS="--documents 100000 --rounds 1")
	$(BIN)/python -m benchmarks.meilisearch $(ARGS)

bench-postgres: $(READY)  ## Measure base backups, WAL and restores against pg_basebackup, pgBackRest and cp
	$(BIN)/python -m benchmarks.postgres $(ARGS)
	$(BIN)/python -m benchmarks.postgres_wal

screenshots: $(READY)  ## Make the pictures of the UI in docs/images (needs chromium and chromium-driver)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "selenium>=4.20,<5"
	$(BIN)/python scripts/screenshots.py $(ARGS)

# Extras are stripped: what they bring is pinned by itself, and older versions of pip take a pin with an extra for another
# package than the one without, whose newest version then has no hash.
COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --strip-extras --custom-compile-command "make pins"

pins: $(READY)  ## Resolve requirements/*.txt anew (ARGS=--upgrade: to the newest versions)
	$(COMPILE) $(ARGS) --extra stores --extra apprise --extra dagster --extra dev --output-file requirements/dev.txt
	$(COMPILE) $(ARGS) --extra stores --extra apprise --extra dagster --constraints requirements/dev.txt --output-file requirements/dagster.txt
	$(COMPILE) $(ARGS) --extra stores --extra apprise --constraints requirements/dev.txt --output-file requirements/base.txt

clean:  ## Remove what make made: the environment, caches, the demo (not .dagster, the history of `make ui`)
	rm -rf $(VENV) .demo .bench .mypy_cache .ruff_cache .import_linter_cache .hypothesis .pytest_cache build dist *.egg-info
	find $(OURS) -name __pycache__ -type d -prune -exec rm -rf {} +
