# `make run` and `make test` are all that is needed: both set up .venv by themselves.
PYTHON ?= python3
CORES ?= 2
PORT ?= 8000
SHELL := /bin/bash  # the make of macOS ignores the PATH below for commands that it starts without a shell
export PATH := $(CURDIR)/.venv/bin:$(PATH)

help:
	@echo 'make run      execute every session in the quick profile (embedded digits, no download), results in runs/quick'
	@echo 'make test     check style and notebooks, run all tests'
	@echo 'make site     build the site into docs/_build/html; needs none of the packages of the course'
	@echo 'make serve    build the site and show it at http://localhost:$(PORT)'
	@echo 'make test-browser run the tests of the site in Chromium; needs chromium, chromium-driver and npm'
	@echo 'make test-slurm   run the test of the batch on a Slurm cluster; needs root, slurm-wlm and munge'
	@echo 'make test-colab   run the notebooks with the versions of packages that Colab has (5 GB more)'
	@echo 'make test-nbgrader run the test of the assignments that `course exercises --nbgrader` makes'
	@echo 'make full     execute every session in full: all variants and seeds on the real data (hours on a CPU)'
	@echo 'make references make the references of the regression test anew; then look at git diff tests/notebooks'
	@echo 'make clean    remove what was made: runs, logs, the site'
	@echo
	@echo 'Options: CORES=4 for more jobs at a time, PYTHON=python3.12 for another interpreter.'

run: .venv/done
	@snakemake --cores $(CORES) quick
	@course list --quick

# One worker more than cores, because some tests wait for others to end.
test: .venv/done
	@ruff check --quiet . && ruff format --quiet --check .
	@nbstripout --verify --keep-id sessions/*/{session,solutions,exercises}.ipynb sessions/run_all.ipynb
	@OMP_NUM_THREADS=1 pytest -n $$(($(CORES) + 1)) --dist loadfile --no-loadscope-reorder

site: .venv/site/done
	@rm -rf docs/_build/html  # Sphinx leaves pages there whose source is gone
	@.venv/site/bin/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html

serve: site
	@.venv/site/bin/python -m http.server --bind 127.0.0.1 --directory docs/_build/html $(PORT)

test-browser: .venv/browser site
	@PYTHONPATH="$(CURDIR)/.venv/browser" pytest -rs -m browser

test-slurm: .venv/slurm
	@PYTHONPATH="$(CURDIR)/.venv/slurm" pytest -rs -m slurm

test-colab: .venv/colab/done
	@COLAB_PACKAGES="$(CURDIR)/.venv/colab" pytest -rs -m colab

test-nbgrader: .venv/nbgrader/done
	@NBGRADER="$(CURDIR)/.venv/nbgrader" pytest -rs -m nbgrader

references: .venv/done
	@python tests/references.py
	@git --no-pager diff --stat -- tests/notebooks

full: .venv/done
	@snakemake --cores $(CORES) full
	@echo 'To publish a session: course publish runs/full/SESSION/*.ipynb'

clean:
	rm -rf runs logs .snakemake docs/_build docs/sessions docs/exercises docs/common

.venv/done: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or newer is needed: make PYTHON=python3.12'; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --progress-bar on --requirement requirements.lock
	.venv/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

# The site has an environment of its own: Sphinx is not needed to learn, nor PyTorch to build pages.
.venv/site/done: docs/requirements.txt
	$(PYTHON) -m venv .venv/site
	.venv/site/bin/python -m pip install --quiet --progress-bar on --requirement $<
	@touch $@

# Beside the other packages, so that only these tests see them; axe-core, which looks for barriers, comes from npm.
.venv/browser: tests/browser.txt .venv/done
	.venv/bin/python -m pip install --quiet --no-deps --upgrade --target $@ --requirement $<
	@npm install --silent --no-save --prefix $@ axe-core@4.14.1 || echo 'Without npm: nobody looks for barriers.'
	@touch $@

# Beside the other packages, so that only this test sees them.
.venv/slurm: profiles/slurm/requirements.txt .venv/done
	.venv/bin/python -m pip install --quiet --no-deps --upgrade --target $@ --requirement $<
	@touch $@

.venv/colab/done: tests/colab.txt .venv/done
	$(PYTHON) -m venv .venv/colab
	.venv/colab/bin/python -m pip install --quiet --progress-bar on --requirement $<
	@touch $@

# It sees the packages of the course, and keeps its own to itself.
.venv/nbgrader/done: .venv/done
	$(PYTHON) -m venv .venv/nbgrader
	.venv/bin/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' > $$(echo .venv/nbgrader/lib/python*/site-packages)/course.pth
	.venv/nbgrader/bin/python -m pip install --quiet --progress-bar on nbgrader==0.9.6
	@touch $@

.PHONY: help run test site serve test-browser test-slurm test-colab test-nbgrader references full clean
