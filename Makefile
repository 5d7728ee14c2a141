# Entry points: setup demo quick test lint docs bench peers chaos gpu-check. Each does all that it needs on a bare Linux machine
# with Python 3.11.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
export PIP_DISABLE_PIP_VERSION_CHECK := 1

DOCS := .venv-docs
PEERS := .venv-peers
.PHONY: setup demo quick test lint docs bench peers chaos gpu-check

setup: $(STAMP)

$(STAMP): $(VENV)/.packages pyproject.toml
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# torch comes with its dependencies, so that whatever build of it is at hand is whole; all else is exactly the lock list.
# PIP_ARGS may name an index, for example one with torch's much smaller CPU build.
$(VENV)/.packages: requirements-cpu.lock
	@test ! -L $(VENV) || { echo "$(VENV) is a link, and making it anew would empty what it leads to: remove the link"; exit 1; }
	$(shell command -v $(PYTHON) || echo python3) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet $(PIP_ARGS) --constraint requirements-cpu.lock torch setuptools wheel ninja
	$(BIN)/pip install --quiet $(PIP_ARGS) --no-deps --no-build-isolation --requirement requirements-cpu.lock
	touch $@

demo: $(STAMP)
	$(BIN)/renio demo --config configs/demo.yaml run_dir=runs/demo-$$(date +%Y%m%d-%H%M%S)

# In two and a half minutes: the unit tests but the slow ones, and one real step of the demo. `make test` decides.
quick: $(STAMP)
	$(BIN)/python -m pytest tests/unit -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/renio train --config configs/demo.yaml steps=1 batch_size=16 data.problems=64 evaluate.problems=0 \
	    run_dir=runs/quick-$$(date +%Y%m%d-%H%M%S)

# Each run of pytest leaves here what it skipped, so that the last line can say it of all of them.
test: export RENIO_SKIPPED := .pytest_cache/skipped
test: $(STAMP)
	rm -rf $(RENIO_SKIPPED)
	$(BIN)/python -m pytest tests/unit tests/actors -n 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest tests/contracts & other=$$!; \
	    $(BIN)/python -m pytest tests/async_engine; found=$$?; wait $$other && exit $$found
	$(BIN)/python -m pytest tests/ray -n 2 --no-loadscope-reorder --durations=10
	$(BIN)/python -m tests.skipped $(RENIO_SKIPPED)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A small environment of its own: no torch, no engines. The site goes to site/; `make docs SERVE=1` shows it while you write.
docs: $(DOCS)/.complete
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs $(if $(SERVE),serve,build)

$(DOCS)/.complete: docs/requirements.txt
	$(shell command -v $(PYTHON) || echo python3) -m venv --clear $(DOCS)
	$(DOCS)/bin/pip install --quiet $(PIP_ARGS) --no-deps --requirement docs/requirements.txt
	touch $@

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks
	$(BIN)/python -m tests.benchmarks.sync
	$(BIN)/python -m tests.benchmarks.schedule
	$(BIN)/python -m tests.benchmarks.plan
	$(BIN)/python -m tests.benchmarks.control
	$(BIN)/python -m tests.benchmarks.control.long_run
	$(BIN)/python -m tests.benchmarks.padding --json runs/bench-padding.json
	$(BIN)/python -m tests.benchmarks.top_k
	$(BIN)/python -m tests.benchmarks.losses --json runs/bench-exact-loss.json
	$(BIN)/python -m tests.benchmarks.losses --loss top_k --json runs/bench-top-k-loss.json

peers: $(STAMP) $(PEERS)/.complete
	$(BIN)/python -m tests.benchmarks.peers

# TRL beside the packages of $(VENV), so that what is compared computes with the same torch, transformers and vLLM.
$(PEERS)/.complete: tests/benchmarks/peers/requirements.txt $(VENV)/.packages
	$(shell command -v $(PYTHON) || echo python3) -m venv --clear $(PEERS)
	$(PEERS)/bin/pip install --quiet $(PIP_ARGS) --no-deps --requirement tests/benchmarks/peers/requirements.txt
	cd $(PEERS)/lib/python3*/site-packages && echo $(CURDIR)/$(VENV)/lib/python3*/site-packages > shared.pth
	touch $@

chaos: $(STAMP)
	$(BIN)/python -m tests.chaos

# With whatever Python is there. On a machine with a network it needs the extra `gpu` alone; on one without, KIT names a folder
# that `python -m tests.gpu.kit` made. OUT is where the table goes.
gpu-check:
	python3 -m tests.gpu $(if $(KIT),--kit $(KIT)) $(if $(OUT),--out $(OUT))
