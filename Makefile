# Each target makes what it needs: `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin
ENCODERS_FROM_PACKAGES := HF_HUB_OFFLINE=1

.PHONY: demo test crash lint check peers

demo: .venv/installed
	$(ENCODERS_FROM_PACKAGES) $(BIN)/nightrank demo

# Two processes of one thread each; a file stays in one, with its fixtures. In the order of the
# names: the longest files, of few tests, would come last by their number of tests.
test: .venv/installed
	OMP_NUM_THREADS=1 $(ENCODERS_FROM_PACKAGES) $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests embed index rank jobs benchmarks --doctest-modules

# More random kills than `make test` has time for.
crash: .venv/installed
	NIGHTRANK_KILLS=1000 OMP_NUM_THREADS=1 $(ENCODERS_FROM_PACKAGES) $(BIN)/python -m pytest -q tests/jobs/test_crash.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

# What the benchmarks are compared with; docs/decisions/0003 says why RecTools comes alone.
peers: .venv/installed
	$(BIN)/uv pip install -q -p .venv -c constraints.txt -e ".[peers]"
	$(BIN)/uv pip install -q -p .venv -c constraints.txt --no-deps rectools

# torch comes first and alone: a looser request would choose another, much larger build. uv installs
# the rest in a fraction of pip's time. What is imported is compiled then; most never is.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --no-compile -c constraints.txt "$$(grep '^torch==' constraints.txt)" uv
	$(BIN)/uv pip install -q -p .venv -c constraints.txt -e ".[cpu,packaged,openvino,postgres,tune,dev]"
	touch $@
