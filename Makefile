.PHONY: demo dev test lint format bench bench-quick screenshots lock
.DELETE_ON_ERROR:

BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

demo: .venv/installed  ## one snapshot through the real job, against stand-ins
	randusers sandbox -- randusers run --head 1

dev: .venv/installed  ## the Dagster UI against stand-ins; objects and history stay in .sandbox/
	mkdir -p .sandbox/dagster && cp dagster.yaml .sandbox/dagster/
	DAGSTER_HOME=$(CURDIR)/.sandbox/dagster randusers sandbox --directory .sandbox -- dagster dev

test: .venv/installed
	pytest -n auto --dist loadfile

bench: .venv/installed  ## ours, the naive script and dlt on the same data; benchmarks/results.md
	python -m benchmarks

bench-quick: .venv/installed
	python -m benchmarks --quick

screenshots: .venv/installed  ## docs/pictures/, from a real run
	python -m randusers_assets_tests.ui.screenshots

lint: .venv/installed
	ruff check && ruff format --check
	mypy

format: .venv/installed
	ruff check --fix && ruff format

.venv/installed: requirements.lock pyproject.toml
	python3 -m venv --clear .venv && sed -n '/^uv==/,/# via/p' requirements.lock > .venv/uv.lock && pip install -q --require-hashes -r .venv/uv.lock
	uv pip install -q --compile-bytecode --require-hashes -r requirements.lock -p .venv
	uv pip install -q --no-deps --no-build-isolation -e . -p .venv && touch $@

lock: .venv/installed  ## refresh every pinned version
	uv pip compile -q --upgrade --universal --generate-hashes --no-emit-index-url --no-strip-extras --all-extras --group dev pyproject.toml -o requirements.lock
