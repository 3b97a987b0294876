# What a fresh machine with Python 3.11+, git and make needs. Everything goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RAPIDS := .venv-rapids
NVDISASM := nvidia-cuda-nvdisasm==13.5.*  # counts the instructions of our kernels, tests/gpu_kernels
SANITIZER := nvidia-cuda-sanitizer-api==13.*  # compute-sanitizer
LOWEST := .venv-lowest
NEWEST := .venv-newest
INSTALLED := $(VENV)/.installed

.PHONY: help install run test browser coverage check docs constraints lowest contract gpu-check bench gpu-bench ui clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /	/' | expand -t 12

install: $(INSTALLED) ## make .venv and install gpuclust into it

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "gpuclust needs Python 3.11 or later: make PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[serve,postgres,duckdb,excel,lakehouse,optuna,remote,dask,leiden,audio,maps,dev,docs]'
	@touch $@

run: install ## the main job: a K-Means sweep k=2..10 on 20,000 generated tracks
	$(BIN)/gpuclust -m data=catalogue data.n_rows=20000 cluster=kmeans 'cluster.n_clusters=range(2,11)'

test: install ## all tests that this machine can run, a file at a time in each of two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

browser: install ## the tests that drive a headless Chromium
	$(BIN)/python -m pytest -m browser

coverage: install ## the tests, with the share of the lines that they run
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-report=xml

check: install ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: install ## the documentation site, into site/; it runs the tutorial
	NO_MKDOCS_2_WARNING=1 GPUCLUST_DOCS_EXECUTE=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

constraints: ## constraints.txt: the newest versions that pyproject.toml allows
	rm -rf $(NEWEST) && $(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[serve,postgres,duckdb,excel,lakehouse,optuna,remote,dask,leiden,audio,maps,dev,docs]'
	{ grep '^#' constraints.txt; $(NEWEST)/bin/python -m pip freeze --exclude-editable; } > constraints.new
	mv constraints.new constraints.txt && rm -rf $(NEWEST)

lowest: ## the lower bounds of pyproject.toml, installed and tried on Python 3.11
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "the lower bounds are of Python 3.11: make lowest PYTHON=python3.11"; exit 2; }
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c tests/lowest-constraints.txt --editable '.[serve]'
	$(LOWEST)/bin/python tests/lowest.py

contract: ## check every call of the GPU backend against the real RAPIDS, and compile the CUDA kernels (about 5 GB, no GPU needed)
	$(MAKE) PYTHON=$(PYTHON) $(RAPIDS)/.installed
	$(RAPIDS)/bin/python -m tests.contract.check_gpu
	$(RAPIDS)/bin/python -m tests.gpu_kernels.check

$(RAPIDS)/.installed: pyproject.toml
	test -x $(RAPIDS)/bin/python || $(PYTHON) -m venv $(RAPIDS)
	$(RAPIDS)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[gpu]' $(NVDISASM)
	@touch $@

gpu-check: ## on a machine with a GPU: the tests marked gpu, then the CUDA kernels under compute-sanitizer; results as JSON
	@command -v nvidia-smi >/dev/null && nvidia-smi -L || { echo "make gpu-check needs a GPU: nvidia-smi finds none"; exit 2; }
	$(MAKE) PYTHON=$(PYTHON) $(RAPIDS)/.checks
	$(RAPIDS)/bin/python experiments/gpu_check.py

$(RAPIDS)/.checks: $(RAPIDS)/.installed
	$(RAPIDS)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[gpu,serve,dev]' $(SANITIZER)
	@touch $@

bench: install ## one script per performance claim; results under experiments/bench/results
	@for script in experiments/bench/*.py; do \
	  case $$script in */common.py) ;; *) echo "== $$script"; $(BIN)/python $$script || exit 1 ;; esac; \
	done

gpu-bench: ## on a machine with a GPU: time single passes and whole fits; results in results/NAME_gpu.json
	@command -v nvidia-smi >/dev/null && nvidia-smi -L || { echo "make gpu-bench needs a GPU: nvidia-smi finds none"; exit 2; }
	$(MAKE) PYTHON=$(PYTHON) $(RAPIDS)/.checks
	@for script in $$(grep -l gpu_too experiments/bench/*.py); do \
	  case $$script in */common.py) ;; *) echo "== $$script"; $(RAPIDS)/bin/python $$script --gpu || exit 1 ;; esac; \
	done

ui: install ## the MLflow UI on the runs of this folder
	$(BIN)/gpuclust ui

clean: ## remove the environments and caches; runs are kept
	rm -rf $(VENV) $(RAPIDS) $(LOWEST) $(NEWEST) site coverage.xml .coverage .coverage.* .pytest_cache .ruff_cache .mypy_cache
