# Every target sets itself up: only python3 (3.11 or later), python3-venv and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup proto lint test bench

# Stamps: the virtualenv follows setup.cfg.
$(VENV)/stamp: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

setup: $(VENV)/stamp

# Regenerates streampush/_pb from the schema; a test fails while they differ.
proto: setup
	mkdir -p build/proto
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc --proto_path=proto --python_out=build/proto --mypy_out=build/proto \
	  proto/streampush/v1/streampush.proto
	cp build/proto/streampush/v1/streampush_pb2.py build/proto/streampush/v1/streampush_pb2.pyi streampush/_pb/

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup
	$(BIN)/python -m pytest

# Streampush beside a naive broadcaster: one JSON line a result, a few minutes. docs/performance.md
bench: setup
	$(BIN)/python -m bench
