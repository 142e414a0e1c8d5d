# Everything a developer or a newcomer runs; CI runs `make test`.
PYTHON ?= python3
BIN := .venv/bin
SOUND := sample_data/users sample_data/orders sample_data/events sample_data/archives

.PHONY: demo test lint types bench chaos clean

$(BIN)/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

.venv/.installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/.tested: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

demo: .venv/.installed  ## install, and run the main job on sample_data
	@echo '$$ asyncbatch run $(SOUND) -b 3 --pause 0.2   # slowed down, to be watched'
	@$(BIN)/asyncbatch run $(SOUND) -b 3 --pause 0.2
	@echo
	@echo '$$ asyncbatch run sample_data'
	@$(BIN)/asyncbatch run sample_data; status=$$?; echo; \
	echo "Exit status $$status: 0 means that every file succeeded, 1 that it ran and some failed"; \
	echo "(here those in sample_data/broken; each is named above with its place and reason)."; \
	test $$status -eq 1

test: lint types  ## lint, types and tests
	$(BIN)/python -m pytest -n auto

lint: .venv/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.tested
	$(BIN)/mypy

chaos: .venv/.tested  ## kill runs at random, carry them on, and count what is lost or doubled
	$(BIN)/python -m tests.chaos --kills 200

bench: .venv/.installed benchmarks/.venv/.installed  ## ours and the peers, side by side
	benchmarks/.venv/bin/python -m benchmarks.run

chaos: .venv/.tested  ## runs killed at 200 random instants and carried on: lost and doubled rows
	$(BIN)/python -m tests.chaos --kills 200

benchmarks/.venv/.installed: benchmarks/requirements.txt
	$(PYTHON) -m venv benchmarks/.venv
	benchmarks/.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

clean:
	rm -rf .venv benchmarks/.venv benchmarks/.data build dist
