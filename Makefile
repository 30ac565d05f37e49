# The whole interface: `make demo`, `make test`, `make check`, `make sweep`, `make simulate`, `make coverage`, `make bench`
# and its longer parts `make bench-ann` and `make bench-gpu`. Each installs what it needs into .venv; `make test-lowest` into .venv-lowest.
PYTHON ?= python3
VENV ?= .venv
# faiss comes by one of two extras that exclude each other: `make test FAISS=gpu` on a machine with CUDA.
FAISS ?= cpu
# Processes that the tests are spread over.
WORKERS ?= 2
BIN = $(VENV)/bin
READY = $(VENV)/ready-$(FAISS)
LOWEST = $(VENV)-lowest
# `make simulate SEED=7 STEPS=2000` plays one seed, without SEED it plays SEEDS of them.
SEED =
SEEDS ?= 20
STEPS ?= 5000
# What the lower bounds were held to; the other tests need engines whose bounds are their newest releases.
LOWEST_TESTS = tests/test_storage tests/test_evaluation tests/test_encoders tests/test_searcher/test_where.py

.PHONY: demo test test-lowest check sweep simulate coverage bench bench-ann bench-gpu clean

demo: $(READY)  ## Index real photographs, search them, leave demo/hits.png
	$(BIN)/python benchmarks/demo.py

test: $(READY)  ## Run every test that needs no GPU
	$(BIN)/python -m pytest --numprocesses $(WORKERS)

test-lowest: $(LOWEST)/ready  ## Run the tests with the lowest releases that pyproject.toml allows
	$(LOWEST)/bin/python -m pytest $(LOWEST_TESTS)

check: $(READY)  ## Lint and type-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## Measure everything again; results go to benchmarks/results/
	$(BIN)/python benchmarks/run.py

sweep: $(READY)  ## Every reliability test at full size, under an hour; the figures go to tests/reliability/last_sweep.json
	$(BIN)/python tests/reliability/sweep.py

simulate: $(READY)  ## Random steps, faults and damage against what is expected of an index; SEED= STEPS= plays one seed again
	$(BIN)/python tests/reliability/simulate.py $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) --steps $(STEPS) --workers $(WORKERS)

coverage: $(READY)  ## The branches of storage/ that its tests and a simulation take, and those that none takes
	$(BIN)/python tests/reliability/branch_coverage.py --workers $(WORKERS)

bench-ann: $(READY)  ## Measure searching a million vectors beside other engines, which it installs: hours
	$(BIN)/python -m pip install --quiet --editable ".[$(FAISS),bench]"
	$(BIN)/python benchmarks/ann.py --rows 1000000 --work benchmarks/work/ann

bench-gpu: $(READY)  ## Measure what a GPU adds, and that its vectors are the CPU's: encoding, building, training
	$(BIN)/python benchmarks/gpu/run.py --results benchmarks/results

$(READY): pyproject.toml $(wildcard storage/list_scan*.[ch])
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[$(FAISS),lite,openvino,watch,plot,demo,server,ray,lance,milvus,photos,qdrant,test,video]"
	touch $@

$(LOWEST)/ready: pyproject.toml $(wildcard storage/list_scan*.[ch])
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable ".[$(FAISS),lite,plot,demo,server,test]"
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) demo build *.egg-info
