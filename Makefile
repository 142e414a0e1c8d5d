# Everything a developer or a newcomer runs; CI runs `make test`.
PYTHON ?= python3
BIN := .venv/bin
SOUND := sample_data/users sample_data/orders sample_data/events sample_data/archives

.PHONY: demo demo-etl demo-stream test test-lowest lint types complete-types bench reference docs torture chaos chaos-stream soak \
	dist audit clean

$(BIN)/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

.venv/.installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# It has the others too. Most modules of the servers that tests start are never imported.
.venv/.tested: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[test]'
	@touch .venv/.installed .venv/.etl $@

demo: .venv/.installed  ## install, and run the main job on sample_data
	@echo '$$ asyncbatch run $(SOUND) -b 3 --pause 0.2   # slowed down, to be watched'
	@$(BIN)/asyncbatch run $(SOUND) -b 3 --pause 0.2
	@echo
	@echo '$$ asyncbatch run sample_data'
	@$(BIN)/asyncbatch run sample_data; status=$$?; echo; \
	echo "Exit status $$status: 0 means that every file succeeded, 1 that it ran and some failed"; \
	echo "(here those in sample_data/broken; each is named above with its place and reason)."; \
	test $$status -eq 1

.venv/.etl: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[http]'
	@touch $@

demo-etl: .venv/.etl  ## install, and load APIs and files into SQLite
	@rm -rf build/demo && mkdir -p build/demo
	@echo '$$ asyncbatch etl sample_data/etl/people.toml'
	@$(BIN)/python sample_data/etl/server.py $(BIN)/asyncbatch etl sample_data/etl/people.toml; 	status=$$?; echo; 	echo "Exit status $$status: some records were rejected, and are in people.rejected.jsonl:"; 	head -n 3 build/demo/people.rejected.jsonl | cut -c -160; echo ...; echo; 	echo "Rows of build/demo/people.db:"; 	$(BIN)/python -c "$$SHOW_PEOPLE"; 	test $$status -eq 1

define SHOW_PEOPLE
import sqlite3
database = sqlite3.connect("build/demo/people.db")
for row in database.execute("SELECT id, name, email, signup FROM people ORDER BY id LIMIT 5"):
    print(*row, sep="\t")
print("...", *database.execute("SELECT count(*) FROM people").fetchone(), "rows in all")
endef
export SHOW_PEOPLE

demo-stream: .venv/.installed  ## install, and watch windows over simulated events for 15 seconds
	@echo '$$ asyncbatch stream simulate: --duration 15s --rate 50 --window tumbling:3s'
	@$(BIN)/asyncbatch stream simulate: --duration 15s --rate 50 --window tumbling:3s

test: lint types  ## lint, types and tests
	$(BIN)/python -m pytest -n auto

lint: .venv/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.tested
	$(BIN)/mypy

complete-types: .venv/.tested  ## at least 95 % of the public names have whole types; needs npx
	# It looks for packages with the `python` of PATH, and ignores --pythonpath.
	PATH="$(CURDIR)/$(BIN):$$PATH" npx --yes pyright --verifytypes asyncbatch --ignoreexternal | \
	    grep -E "completeness score: (9[5-9]|100)"

# The tests that call each library most. CI has no time for the others a second time:
# `make test-lowest LOWEST=` runs all.
LOWEST := tests/formats tests/sources/http tests/sinks/postgres/test_types.py tests/sinks/test_duckdb.py \
	tests/sinks/test_parquet.py tests/sinks/test_sqlite.py tests/sinks/test_values.py tests/cli/test_live_page.py \
	tests/cli/test_progress.py tests/storage/test_object_outputs.py tests/transforms/test_jq.py \
	tests/transforms/test_jq_evaluator.py tests/transforms/test_json_values.py tests/transforms/test_schema.py

test-lowest: .venv/.tested  ## tests with the lowest versions that pyproject.toml allows
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m tests.lowest > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--constraint .venv-lowest/constraints.txt --editable '.[test]'
	.venv-lowest/bin/python -m pytest -n auto $(LOWEST)

dist: .venv/.tested  ## the wheel and the source distribution, as PyPI takes them
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

audit: .venv/.tested  ## known holes in what users install; needs the advisories of PyPI
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit '.[all]'
	.venv-audit/bin/python -m pip freeze --exclude asyncbatch > .venv-audit/installed.txt
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement .venv-audit/installed.txt

reference: .venv/.tested  ## write docs/options.md and docs/failures.md from the declarations
	$(BIN)/python -m tests.reference

.venv/.docs: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

docs: reference .venv/.docs  ## build the site of the documentation into build/site, and check its links
	$(BIN)/python -m tests.picture
	$(BIN)/zensical build --strict --clean
	$(BIN)/python -m tests.site

torture: .venv/.tested  ## many random cases: the same values, however the records come
	$(BIN)/python -m tests.torture --cases $(or $(CASES),100)

chaos: .venv/.tested  ## kill runs at random, carry them on, and count what is lost or doubled
	$(BIN)/python -m tests.chaos.files --kills 200

chaos-stream: .venv/.tested  ## kill streams at random, go on from their checkpoints, and compare
	$(BIN)/python -m tests.chaos.streams --kills 200

SECONDS ?= 480
soak: .venv/.tested  ## streams for eight minutes: memory stays, nothing is lost
	$(BIN)/python -m tests.chaos.soak --seconds $(SECONDS)

.venv/.bench: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable \
	    '.[cloud,dask,http,parquet,postgres,watch]'
	@touch $@

BENCH ?=
bench: .venv/.bench benchmarks/.venv/.installed  ## ours and the peers, side by side: BENCH="--quick"
	benchmarks/.venv/bin/python -m benchmarks.run $(BENCH)

benchmarks/.venv/.installed: benchmarks/requirements.txt
	$(PYTHON) -m venv benchmarks/.venv
	benchmarks/.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

clean:
	rm -rf .venv .venv-audit .venv-lowest benchmarks/.venv benchmarks/.data .cache build dist
