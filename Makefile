# make book    the environment, the data, the notebooks, the site; ends with the site's path
# make test    the environment, and all tests
# make lint    the style alone;  make clean  remove all that was made but the environment
# make notebooks  the notebooks as they are committed: without outputs but those that the tests check
# make lock       requirements.txt anew
#
# Needs Python 3.11 or newer, make, git and the package registries. A second call does nothing that is already done.

PYTHON ?= python3
PROFILE ?= mini
VENV := .venv
BIN := $(VENV)/bin
ENV := $(VENV)/.installed
STAMPS := _build/stamps

# What is hidden, compiled or locked is no source.
CODE := $(shell find effbook data_manifests -type f -not -name '*.pyc' -not -name '*.nb[ic]') pyproject.toml
PAGES := $(shell find book notebooks labs -type f -not -name '*.lock' -not -path '*/.*') _config.yml _toc.yml
TESTS := $(shell find tests -name '*.py')

.DEFAULT_GOAL := book
.DELETE_ON_ERROR:
.PHONY: book test lint env notebooks lock clean distclean

book: $(STAMPS)/book-$(PROFILE)
	@echo "The book: $(CURDIR)/_build/$(PROFILE)/html/index.html"

test: $(STAMPS)/lint $(STAMPS)/pytest
	@echo "All tests pass."

lint: $(STAMPS)/lint

env: $(ENV)

$(ENV): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "effbook needs Python 3.11 or newer; call make with PYTHON=/path/to/python3.11." >&2; exit 1; }
	@echo "Making the environment in $(VENV): some minutes, about 7 GB."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --requirement requirements.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# What cannot be fetched gets one sentence; the pages then say what they lack.
$(STAMPS)/book-$(PROFILE): $(ENV) $(CODE) $(PAGES)
	@$(BIN)/effbook data fetch --quiet || echo "The book is built without these."
	@$(BIN)/effbook book build --profile $(PROFILE)
	@mkdir -p $(@D) && touch $@

$(STAMPS)/lint: $(ENV) $(CODE) $(TESTS)
	@$(BIN)/ruff check --quiet effbook tests
	@$(BIN)/ruff format --check --quiet effbook tests
	@mkdir -p $(@D) && touch $@

# One thread a worker: two cores, two workers.
$(STAMPS)/pytest: $(ENV) $(CODE) $(TESTS) $(PAGES)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadgroup -q
	@mkdir -p $(@D) && touch $@

notebooks: $(ENV)
	@for path in notebooks/*/*.ipynb; do \
		$(BIN)/python -c 'import sys; from effbook.book.notebooks import refresh_outputs; refresh_outputs(sys.argv[1])' \
			$$path || exit 1; done

# The newest versions that pyproject.toml allows; call `make test` before you keep the result.
lock:
	$(PYTHON) -m venv --clear _build/lock
	_build/lock/bin/python -m pip install --quiet '.[dev]'
	{ sed -n '/^#/p' requirements.txt; _build/lock/bin/python -m pip freeze --exclude effbook --all \
		| grep -v '^pip==' | sed -E '/^(nvidia-|triton|cuda-)/ s/$$/ ; sys_platform == "linux"/'; } > _build/requirements.txt
	mv _build/requirements.txt requirements.txt

clean:
	rm -rf _build .pytest_cache .ruff_cache build dist

distclean: clean
	rm -rf $(VENV)
