# `make run` and `make test` are all that is needed: both set up .venv by themselves.
PYTHON ?= python3
CORES ?= 2
SNAKEMAKE = $(LOCK) .venv/bin/snakemake --quiet rules host --cores $(CORES) --rerun-incomplete --nolock
# Where there is flock, a second batch waits for the first; it lets go by itself when a batch is killed.
LOCK = $(shell command -v flock > /dev/null && echo flock .venv/lock)
export PATH := $(CURDIR)/.venv/bin:$(PATH)

help:
	@echo 'make run      execute every session in the quick profile (embedded digits, no download), results in runs/quick'
	@echo 'make test     run all tests'
	@echo 'make full     execute every session in full: all variants and seeds on the real data (hours on a CPU)'
	@echo 'make clean    remove what the batch made: runs, logs'
	@echo
	@echo 'Options: CORES=4 for more jobs at a time, PYTHON=python3.12 for another interpreter.'

run: .venv/done
	@$(SNAKEMAKE) quick
	@course list --quick

test: .venv/done
	@pytest

full: .venv/done
	@$(SNAKEMAKE) --keep-going full
	@echo 'To publish a session: course publish runs/full/SESSION/*.ipynb'

clean:
	rm -rf runs logs .snakemake

.venv/done: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or newer is needed: make PYTHON=python3.12'; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --progress-bar on --requirement requirements.lock
	.venv/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

.PHONY: help run test full clean
