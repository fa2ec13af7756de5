# Every target sets itself up: only python3 (3.11 or later), python3-venv and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE_CLIENT := tests/interop/node

.PHONY: help setup demo demo-cluster run test simulate torture torture-cluster soak lint bench coverage core-coverage proto wheel clean

help:
	@echo "make demo      the whole product in one run: a cut connection, a device that is away, recalls, a receipt, pushes, counts"
	@echo "make demo-cluster  three workers over a real Redis: a worker and Redis are killed under load, nothing is lost"
	@echo "make test      every test"
	@echo "make simulate  10 000 scenarios of server and clients with faults (SEEDS=, FIRST=); SEED=n replays one"
	@echo "make torture   the real server under load, killed KILLS=50 times, frozen, its disk filled (SEED=, SECONDS=)"
	@echo "make torture-cluster  three workers over Redis: worker, supervisor and Redis killed (KILLS=), frozen, workers drained"
	@echo "make soak      a million pushes to a simulated Apple that misbehaves: each ends, memory stays flat (PUSHES=)"
	@echo "make run       the server in the foreground with a development configuration"
	@echo "make lint      ruff, mypy, import-linter, news fragments"
	@echo "make bench     benchmarks, one JSON line each"
	@echo "make coverage  every test, with branch coverage; make core-coverage holds the wire cores at 100 %"
	@echo "make wheel     build a wheel, install it in an empty virtualenv, run it from there"
	@echo "make proto     write streampush/_pb from the schema"

# The virtualenv follows setup.cfg.
$(VENV)/stamp: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("streampush needs Python 3.11 or later") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	touch $@

setup: $(VENV)/stamp

# The interop client's packages, where there is a Node to run it; without one its test says so and is skipped.
$(NODE_CLIENT)/node_modules/stamp: $(NODE_CLIENT)/package.json
	@if command -v npm >/dev/null; then \
	  cd $(NODE_CLIENT) && npm install --no-audit --no-fund --no-package-lock --loglevel=error && touch node_modules/stamp; \
	else echo "no npm: the interop test will be skipped"; fi

demo: setup
	$(BIN)/python -m demo

demo-cluster: setup
	$(BIN)/python -m demo.cluster

run: setup
	@test -e var/dev/streampush.toml || $(BIN)/streampush init var/dev >/dev/null
	@echo
	@echo "In another terminal:"
	@echo "  $(BIN)/streampush listen --dir var/dev --device phone-1 --subscribe news/today"
	@echo "  $(BIN)/streampush publish --dir var/dev device:phone-1 'hello phone'"
	@echo "  $(BIN)/streampush publish --dir var/dev news/today 'hello everybody'"
	@echo
	$(BIN)/twistd --nodaemon --pidfile= streampush --config var/dev/streampush.toml --set log.format=text

# In so many processes, each of which takes whole files; more than cores, as many tests wait for processes that they have started. What the tests start imports the product anew, so it is kept compiled.
TESTERS ?= 4
test: setup $(NODE_CLIENT)/node_modules/stamp
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest --numprocesses $(TESTERS) --dist loadfile --no-loadscope-reorder

# The whole server and its clients in virtual time. A scenario is a number; SEED=n shows what happens in that one.
FIRST ?= 0
SEEDS ?= 10000
simulate: setup
	$(BIN)/python -m tests.simulation $(if $(SEED),$(SEED) --trace,$(FIRST) $(SEEDS))

# The real server under load. SECONDS bounds the time in which it is killed; KEEP=folder keeps journals, logs and stores.
KILLS ?= 50
torture: setup
	$(BIN)/python -m tests.torture --kills $(KILLS) $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(KEEP),--keep $(KEEP))

# Three workers over a real Redis, which stores each command before it answers. Each fault in turn falls on worker, Redis, supervisor.
torture-cluster: setup
	$(BIN)/python -m tests.torture --workers 3 --kills $(KILLS) --freezes 12 --drains 8 $(if $(SEED),--seed $(SEED)) \
	  $(if $(SECONDS),--seconds $(SECONDS)) $(if $(KEEP),--keep $(KEEP))

PUSHES ?= 1000000
soak: setup
	$(BIN)/python -m tests.apns.soak $(PUSHES)

coverage: setup $(NODE_CLIENT)/node_modules/stamp
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

# The two cores that read bytes of strangers are held at 100 % of their branches, by their own tests.
core-coverage: setup
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run --source=streampush/protocol,streampush/apns/http2 -m pytest tests/protocol tests/apns/http2
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --fail-under=100

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/towncrier build --draft --version next >/dev/null

bench: setup
	$(BIN)/python -m bench

wheel: setup
	$(BIN)/python tests/wheel/check_wheel.py

# A test fails while the checked-in code differs from what this writes.
proto: setup
	mkdir -p build/proto
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc --proto_path=proto --python_out=build/proto \
	  --mypy_out=build/proto proto/streampush/v1/streampush.proto
	cp build/proto/streampush/v1/streampush_pb2.py build/proto/streampush/v1/streampush_pb2.pyi streampush/_pb/

clean:
	rm -rf $(VENV) build dist var $(NODE_CLIENT)/node_modules
