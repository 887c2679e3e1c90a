# Two commands matter: `make demo` and `make test`. The others are their parts.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo drill down test tools check docs unit integration bench soak clean format
demo: .venv/installed ## everything installed, sandbox up, platform deployed through the Prefect API
	$(BIN)/python -m sandbox.demo

drill: .venv/installed ## behind `make demo`: lose its platform with all volumes, bring it back, print the recovery time
	$(BIN)/python -m sandbox.demo drill

down: .venv/installed ## end all that `make demo` started
	$(BIN)/python -m sandbox.demo down

test: check integration ## all tests

tools: .venv/installed ## what the tests run, built once: before them, since it takes longer than a test may
	$(BIN)/python -m sandbox.machine.prerequisites
	$(BIN)/python -m sandbox.machine.binaries
	$(BIN)/python -m sandbox.machine.neo4j_programs

check: tools ## lint, types, layers, documents, unit tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) docs
	$(MAKE) unit

docs: .venv/installed ## the documents as a site in build/site; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

unit: .venv/installed
	$(BIN)/pytest -q -n 2 tests/unit

integration: tools ## on embedded clusters, in two processes: tests/integration/conftest.py says which test in which
	$(BIN)/pytest -q -n 2 --dist loadgroup tests/integration

bench: .venv/installed ## figures of deploy, gates, control room, backups and proofs, with their targets
	$(BIN)/python -m tests.bench.deploy
	$(BIN)/python -m tests.bench.engines
	$(BIN)/python -m tests.bench.control_room
	$(BIN)/python -m tests.bench.backup
	$(BIN)/python -m tests.bench.proof
	$(BIN)/python -m tests.bench.owners
	$(BIN)/python -m tests.bench.interval

soak: tools ## exhaustive: faults at every call of every component's backup, every damage, every engine rebuilt; an hour
	$(BIN)/python -m tests.soak.backup
	$(BIN)/python -m tests.soak.proofs
	$(BIN)/python -m tests.soak.cases
	$(BIN)/python -m tests.soak.worker_image
	$(BIN)/python -m tests.soak.nodes
	$(BIN)/python -m tests.soak.postgresql
	$(BIN)/python -m tests.soak.wal
	$(BIN)/python -m tests.soak.run_jobs

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## forget environment and sandboxes; the build cache stays
	-test -x $(BIN)/isa && $(MAKE) down
	rm -rf .venv build *.egg-info

.venv/installed: requirements.txt requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "isa-cloud needs Python 3.11 or newer: make PYTHON=…")'
	$(PYTHON) -c 'import ensurepip' || apt-get install -y python3-venv # Debian keeps it apart
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --progress-bar on -r requirements-dev.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@
