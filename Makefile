# make setup · make demo · make test · make browser-test · make lint · make docs · make bench
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := $(patsubst packages/%/pyproject.toml,%,$(wildcard packages/*/pyproject.toml))
STAMP := $(VENV)/.installed
WORKERS ?= 2

.PHONY: setup demo test browser-test lint docs bench clean

setup: $(STAMP)

# Every package is installed in place (editable); the versions come from constraints.txt alone.
$(STAMP): pyproject.toml constraints.txt requirements-dev.txt $(wildcard packages/*/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation \
		$(foreach p,$(filter-out core,$(PACKAGES)),-e packages/$(p)) -e 'packages/core[samples]' -e '.[all]'
	touch $(STAMP)

demo: setup
	$(BIN)/python tools/demo.py demo_out

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist=loadgroup -q

# Needs a chromium and its driver on the machine (Debian: chromium chromium-driver).
browser-test: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt selenium
	$(BIN)/python -m pytest browser -q

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy packages/*/src/opsin

docs: setup
	$(BIN)/python tools/docs_tables.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: setup
	$(BIN)/python tools/benchmark.py

clean:
	rm -rf $(VENV) demo_out work_dirs site
