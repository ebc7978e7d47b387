.PHONY: demo dev test lint format lock
.DELETE_ON_ERROR:

BIN := .venv/bin

.venv/installed: requirements.lock pyproject.toml
	python3 -m venv --clear .venv && sed -n '/^uv==/,/# via/p' requirements.lock > .venv/uv.lock && $(BIN)/pip install -q --require-hashes -r .venv/uv.lock
	$(BIN)/uv pip install -q --compile-bytecode --require-hashes -r requirements.lock -p .venv
	$(BIN)/uv pip install -q --no-deps --no-build-isolation -e . -p .venv && touch $@

lock: .venv/installed  ## refresh every pinned version
	$(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --no-emit-index-url --no-strip-extras --all-extras --group dev pyproject.toml -o requirements.lock
