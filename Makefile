# Two commands do all the set-up: make demo, make test. Python >= 3.11, pip and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1

.PHONY: demo test quick spark check docs coverage bench examples lock clean

demo: $(VENV)/.runtime  ## simulate a municipality, run its study, write the report
	$(BIN)/evalkit demo $(DEMO)

test: $(VENV)/.develop  ## all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

quick: $(VENV)/.develop  ## the fast subset, under two minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

spark: $(VENV)/.spark  ## the same code on a local Spark session; needs Java 17 or later
	$(BIN)/python -m pytest tests/spark

check: $(VENV)/.develop  ## style, types, import contracts, docs build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) docs

docs: $(VENV)/.develop  ## the documentation as a site, in site/
	$(BIN)/mkdocs build --strict --quiet

coverage: $(VENV)/.develop  ## does the line recover the truth, do intervals cover (long); writes docs/coverage-table.md
	OMP_NUM_THREADS=1 $(BIN)/python tests/simulation/cover.py --replications 500 --out docs/coverage-table.md
	OMP_NUM_THREADS=1 $(BIN)/python tests/simulation/cover_estimators.py --reps 1000 --boot 100 --processes 2 --out docs/coverage-estimators.md
	OMP_NUM_THREADS=1 $(BIN)/python tests/simulation/cover_did.py --reps 1000 --processes 2 --out docs/coverage-did.md
	OMP_NUM_THREADS=1 $(BIN)/python tests/simulation/size_few.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/simulation/cover_hazards.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/simulation/cover_duration.py --processes 2
	OMP_NUM_THREADS=1 $(BIN)/python tests/simulation/gaure.py

bench: $(VENV)/.develop  ## time and memory of the whole line by number of persons
	$(BIN)/python tests/simulation/bench.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/simulation/bench_matching.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/simulation/bench_weighting.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/simulation/bench_balance.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/simulation/bench_did.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/simulation/bench_duration.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/simulation/bench_cox.py
	$(BIN)/python tests/simulation/bench_peers.py

examples: $(VENV)/.develop  ## real data: experiment beside matching, difference-in-differences, published tables
	$(BIN)/python examples/nsw/run.py
	$(BIN)/python examples/nsw/dehejia_wahba.py
	OMP_NUM_THREADS=1 $(BIN)/python examples/castle/run.py
	OMP_NUM_THREADS=1 $(BIN)/python examples/jtrain/run.py

lock: $(VENV)/.develop $(VENV)/.spark  ## pin what is installed and tested
	{ echo "# What is tested. Made by make lock; pip reads it as constraints."; $(BIN)/pip freeze --exclude-editable | grep -v -i '^evalkit'; } > requirements.lock

clean:
	rm -rf $(VENV) $(DEMO) site

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml requirements.lock | $(BIN)/python
	$(BIN)/pip install --quiet -c requirements.lock -e .
	touch $@

$(VENV)/.develop: pyproject.toml requirements.lock | $(BIN)/python
	$(BIN)/pip install --quiet -c requirements.lock -e ".[test,docs,examples]"
	touch $@ $(VENV)/.runtime

$(VENV)/.spark: $(VENV)/.develop
	$(BIN)/pip install --quiet -c requirements.lock -e ".[spark]"
	touch $@
