.PHONY: demo dev test readers test-image test-cluster first-hour fuzz lint format bench bench-quick screenshots lock help
.DELETE_ON_ERROR:

BIN := .venv/bin
PORT := 3000
export PATH := $(CURDIR)/$(BIN):$(PATH)

demo: .venv/installed  ## run the job once against a simulated API and a local S3
	randusers sandbox --simulate-all -- randusers run --head 1

# In .sandbox/dagster, as Dagster warns of a second dagster.yaml where it starts.
dev: .venv/installed  ## open the Dagster UI with the same; data and run history stay in .sandbox/
	@python -c 'import socket; socket.create_server(("127.0.0.1", $(PORT)))' 2> /dev/null || { echo "Port $(PORT) is in use: choose another one, as in make dev PORT=3001." >&2; exit 1; }
	mkdir -p .sandbox/dagster && cp dagster.yaml .sandbox/dagster/ && ln -sf ../../.env .sandbox/dagster/
	cd .sandbox/dagster && DAGSTER_HOME=$(CURDIR)/.sandbox/dagster PYTHONWARNINGS='ignore:Function `dev_command` is superseded' randusers sandbox --directory .. -- dagster dev --workspace ../../workspace.yaml --port $(PORT)

test: .venv/installed  ## run all tests
	pytest -n auto --dist loadfile --no-loadscope-reorder

test-image: .venv/installed  ## build the image with buildah, and run it with runc; needs root and Debian
	pytest randusers_assets_tests/image.py

readers: .sandbox/readers/installed  ## install the CSV readers that some tests need and skip without

first-hour: .venv/installed  ## do all that the README says, from a clone to an alert
	python -m randusers_assets_tests.first_hour

test-cluster: .venv/installed  ## run deploy/celery/ on two hosts of this machine; needs root
	pytest randusers_assets_tests/cluster

fuzz: .venv/installed  ## run the property tests on 2,000 new examples each
	pytest -n auto -m hypothesis --hypothesis-profile fuzz

lint: .venv/installed  ## check style, format and types
	ruff check && ruff format --check
	mypy

format: .venv/installed  ## fix style and format
	ruff check --fix && ruff format

bench: .venv/installed  ## compare with a script and dlt; writes benchmarks/results.md
	python -m benchmarks

bench-quick: .venv/installed  ## the same with few rounds; writes .sandbox/bench/results/
	python -m benchmarks --quick

screenshots: .venv/installed  ## take the pictures of the UI again, docs/pictures/
	python -m randusers_assets_tests.ui.screenshots

lock: .venv/installed  ## update every version in both locks
	uv pip compile -q --upgrade --universal --generate-hashes --no-emit-index-url --no-strip-extras --all-extras --group dev pyproject.toml -o requirements.lock
	uv pip compile -q --upgrade --universal --generate-hashes --no-emit-index-url --no-strip-extras --extra ui --extra postgres --extra celery --extra k8s -c requirements.lock pyproject.toml -o requirements-run.lock

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' Makefile

.venv/installed: requirements.lock pyproject.toml
	python3 -m venv --clear .venv && sed -n '/^uv==/,/# via/p' requirements.lock > .venv/uv.lock && pip install -q --require-hashes -r .venv/uv.lock
	uv pip install -q --compile-bytecode --require-hashes -r requirements.lock -p .venv
	uv pip install -q --no-deps --no-build-isolation -e . -p .venv && touch $@

.sandbox/readers/installed: randusers_assets_tests/readers/requirements.lock .venv/installed
	uv venv -q --clear .sandbox/readers
	uv pip install -q --compile-bytecode --require-hashes -r $< -p .sandbox/readers
	HOME=$(CURDIR)/.sandbox/readers .sandbox/readers/bin/python randusers_assets_tests/readers/install_extensions.py && touch $@
