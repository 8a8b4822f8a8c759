# Everything here works from a bare checkout with Python 3.10 or newer, make and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Names the Python that the environment was made with: another PYTHON makes another environment.
MADE := $(VENV)/.python-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
CLEAR := $(if $(wildcard $(VENV)/.python-*),--clear)
PIP := $(BIN)/python -m pip --disable-pip-version-check
UV_LOCK := uv pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --quiet

# The rooms below the Prefect face need no server, no browser and no network; the face is what a new Prefect may break.
ROOMS := domain catalog gateways engine datasets sandbox
UNIT := $(ROOMS:%=src/prefect_happyhorse/%) $(ROOMS:%=tests/%) tests/contract
FACE := tests/artifacts tests/tasks tests/flows tests/cli

# Many tests wait for servers and processes. Each process has a Prefect server of its own, so there are few of them.
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile

# A user's own settings must not reach the demo or the tests.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE PIP_PREFIX PIP_TARGET PIP_USER PREFECT_API_KEY PREFECT_API_URL PREFECT_PROFILE
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
# The Prefect server takes up to 20 s to start on a small machine, which is its own limit.
export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS := 180

.PHONY: help demo setup unit test test-lowest test-next e2e chaos simulate lint types check bench docs release lock clean

help:  ## Say what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

# Where Python comes without ensurepip, as on a bare Debian, the machine's own pip puts pip into the environment.
$(MADE):
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed; this is " + sys.version.split()[0] + ". Say which with make PYTHON=python3.12")'
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(CLEAR) $(VENV); else \
		$(PYTHON) -m venv $(CLEAR) --without-pip $(VENV) && \
		$(PYTHON) -m pip install --quiet --disable-pip-version-check pip \
			--target "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"; \
	fi
	@touch $@

# A lock is installed as it stands: asked for the requirements of its packages, pip 23 looks for one that has extras beyond the lock,
# and stops at a newer release for want of its hash. `pip check` proves afterwards that nothing is missing. What the demo needs is in every lock.
$(VENV)/.%: %.lock pyproject.toml $(MADE)
	@echo "Installing $< into $(VENV) ..."
	$(PIP) install --quiet --no-deps --require-hashes -r $<
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	$(PIP) check
	@touch $@ $(VENV)/.requirements

demo: $(VENV)/.requirements  ## Make a picture, a video and an edit of it against the sandbox
	$(BIN)/happyhorse demo

setup: $(VENV)/.requirements-dev  ## Make the environment for development

unit: setup  ## Run the tests that need no server, no browser and no network
	$(BIN)/python -m pytest --quiet --numprocesses auto -m 'not slow' $(UNIT)

test: setup  ## Run all tests
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(SIDE_BY_SIDE)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-empty
	@# Where money is decided, every branch is tested.
	$(BIN)/coverage report --skip-empty --include='src/prefect_happyhorse/domain/*,src/prefect_happyhorse/catalog/*,src/prefect_happyhorse/gateways/*' --fail-under=100

e2e: setup  ## Run flows on real servers, workers, PostgreSQL and S3, all started from nothing
	$(BIN)/python -m pytest tests/e2e tests/reliability/test_worker.py

chaos: setup  ## Break everything that can break, for half an hour, and write the table of docs/reliability.md
	@# Some of its tests take minutes, and many on a busy machine: what hangs elsewhere may not hang here.
	CHAOS=full CHAOS_PAGE=docs/reliability.md $(BIN)/python -m pytest -o faulthandler_timeout=3600 tests/reliability

simulate: setup  ## Run the engine in 100,000 simulated worlds, in which anything may happen at every await
	@# One of its tests takes the most of an hour.
	SIMULATE=100000 $(BIN)/python -m pytest -s -o faulthandler_timeout=14400 tests/simulation

lint: setup  ## Check style and the directions of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: setup  ## Check types
	$(BIN)/basedpyright --pythonpath $(BIN)/python --level error

check: lint types test  ## All of these

bench: setup  ## Measure everything beside a baseline in the same run, and write the tables of docs/performance.md (PART=figures, batches or chains for one)
	$(BIN)/python -m tests.bench --page docs/performance.md $(PART:%=--part %)

docs: setup  ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

test-lowest:  ## Run all tests on the oldest dependencies that are allowed
	$(MAKE) VENV=$(VENV)-lowest $(VENV)-lowest/.requirements-lowest
	$(VENV)-lowest/bin/python -m pytest $(SIDE_BY_SIDE)

# What is tried is what is published: the very files of dist/, in an environment that has nothing but the lock and the wheel.
release: setup  ## Build a version's wheel and sdist into dist/, check and try them; DEV=1 does it for what is no release yet
	$(BIN)/python -m tests.distribution.release $(if $(DEV),--dev)
	rm -rf dist $(VENV)-release
	$(BIN)/python -m hatchling build
	DIST=dist $(BIN)/python -m pytest --quiet tests/distribution/test_wheel.py
	$(MAKE) VENV=$(VENV)-release $(VENV)-release/.requirements
	$(VENV)-release/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --force-reinstall dist/*.whl
	$(VENV)-release/bin/python -m pip --disable-pip-version-check check
	empty=$$(mktemp -d) && tried=$(CURDIR)/$(VENV)-release/bin/happyhorse && cd $$empty && $$tried --version && $$tried demo; \
		status=$$?; rm -rf $$empty; exit $$status

# Whatever bound of the newest Prefect the lock does not meet, `pip check` names it and the tests decide.
test-next:  ## Run the tests of the Prefect face on the newest Prefect
	$(MAKE) VENV=$(VENV)-next $(VENV)-next/.requirements-dev
	$(VENV)-next/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade 'prefect<4' whenever
	-$(VENV)-next/bin/python -m pip --disable-pip-version-check check
	$(VENV)-next/bin/python -m pytest $(FACE)

lock:  ## Write the locks anew, keeping what is pinned where it is still allowed (needs uv)
	$(UV_LOCK) --python-version 3.10 pyproject.toml --extra sandbox --group build -o requirements.lock
	$(UV_LOCK) --python-version 3.10 pyproject.toml --extra sandbox --extra data --group dev --group ray -c requirements.lock -o requirements-dev.lock
	$(UV_LOCK) --python-version 3.12 pyproject.toml --extra sandbox --extra s3 --group deploy -c requirements.lock -o deployments/requirements.lock
	$(UV_LOCK) --python-version 3.10 --resolution lowest-direct pyproject.toml --extra sandbox --extra data --group dev -o requirements-lowest.lock

clean:  ## Remove what the targets made
	rm -rf $(VENV) $(VENV)-* .coverage .coverage.* .pytest_cache .ruff_cache .hypothesis .import_linter_cache build demo dist site
