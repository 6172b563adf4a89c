# make demo      a broker, two workers and a client on this machine, for some seconds
# make test      the tests but for the slow ones; ARGS="-k name" goes to pytest
# make test-slow  the slow ones: hosts cut off, chaos, the benchmarks, the wheel; some skip without root or the network
# make test-all  what `make test` does; then, on the other CPythons of VERSIONS that there are: on the oldest and the newest
#                all but what makes no difference, with what is CPython's own; on those between what matters most
# make test-oldest  what matters most, with the oldest of what pyproject.toml allows
# make newest    says which CPython of VERSIONS is the newest here
# make check     format, lint and types
# make bench     the benchmarks; ARGS goes to them
# make bench-peers  the same work through other systems; ARGS="--install" installs what is missing
# make dist      the sdist and the wheel of a release, in dist/, looked at as PyPI does
# make clean     remove all that these have made
#
# Each sets up the virtual environment it needs. To use another interpreter: make PYTHON=python3.12 VENV=.venv-3.12 ...

PYTHON = python3
VENV = .venv
VERSIONS = 3.10 3.11 3.12 3.13 3.14
ARGS =
MARKS = not slow
CONSTRAINTS =
MOST = tests/wire/test_wire.py tests/transport/test_connection.py tests/transport/test_identity.py \
	tests/broker/test_broker.py tests/client/test_client.py tests/client/test_link.py \
	tests/client/test_leave_and_fetch.py tests/worker/test_worker.py tests/commands/test_completion.py \
	tests/web/test_doors.py

PIP = $(VENV)/bin/python -m pip --quiet --disable-pip-version-check
INSTALL = $(PIP) install --no-compile $(CONSTRAINTS)
PYTEST = $(VENV)/bin/python -m pytest -n 4 --dist loadfile

# The tests start programs by the thousand: what is compiled is kept, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

TOO_OLD = "Python 3.10 or newer is needed: make PYTHON=python3.12 ..."

.PHONY: demo test test-slow test-all test-oldest newest check bench bench-peers dist clean

demo: $(VENV)/with-pyzmq
	@$(VENV)/bin/python tests/demo.py

test: $(VENV)/with-tests
	@$(PYTEST) -m "$(MARKS)" $(ARGS)

test-slow: $(VENV)/with-slow
	@$(PYTEST) -m slow $(ARGS)

check: $(VENV)/with-checks
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy --strict

bench: $(VENV)/with-tests
	@$(VENV)/bin/python -m bench $(ARGS)

bench-peers: $(VENV)/with-bench
	@$(VENV)/bin/python -m bench.peers $(ARGS)

# A name on the PATH may be a shim for what is not there, or lack what makes an environment: try it. The environments
# have no pip of their own, which takes longer to install than all the rest.
AS_VERSION = PYTHON=python$$version VENV_OPTIONS=--without-pip \
	PIP="$(abspath $(VENV))/bin/python -m pip --quiet --disable-pip-version-check --python \$$(VENV)/bin/python"
IS_HERE = python$$version -c 'import ensurepip, venv, zlib' 2>/dev/null

newest:
	@here=python3; for version in $(VERSIONS); do if $(IS_HERE); then here=python$$version; fi; done; echo $$here

test-all: test $(VENV)/with-pip
	@here=$$(for version in $(VERSIONS); do \
		if $(IS_HERE); then echo $$version; else echo "python$$version: not here" >&2; fi; \
	done); \
	for version in $$here; do \
		if [ $$version = $$($(VENV)/bin/python -c "import sys; print('%d.%d' % sys.version_info[:2])") ]; then \
			echo "python$$version: tested above"; continue; \
		elif [ $$version = $${here%%[!0-9.]*} ] || [ $$version = $${here##*[!0-9.]} ]; then \
			set -- MARKS="(not slow and not once) or each"; \
		else \
			set -- ARGS="$(MOST) $(ARGS)"; \
		fi; \
		echo "python$$version:"; \
		$(MAKE) --no-print-directory test VENV=.venv-$$version $(AS_VERSION) "$$@" || exit 1; \
	done

# The oldest pyzmq has wheels for these alone.
test-oldest: $(VENV)/with-pip
	@for version in 3.10 3.11; do \
		if $(IS_HERE); then \
			exec $(MAKE) --no-print-directory test VENV=.venv-oldest $(AS_VERSION) \
				CONSTRAINTS="-c tests/oldest.txt" ARGS="$(MOST) $(ARGS)"; \
		fi; \
	done; \
	echo "neither python3.10 nor python3.11 is here"

dist: $(VENV)/with-release
	@rm -rf dist
	@$(VENV)/bin/python -m build
	@$(VENV)/bin/twine check --strict dist/*

clean:
	rm -rf .venv .venv-3.* .venv-oldest .venv-peers build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and $(TOO_OLD) or 0)'
	@$(PYTHON) -m venv $(VENV_OPTIONS) $(VENV)

$(VENV)/with-pyzmq: | $(VENV)/bin/python
	@$(INSTALL) pyzmq
	@touch $@

# One that installs into other environments.
$(VENV)/with-pip: | $(VENV)/bin/python
	@$(INSTALL) 'pip>=22.3'
	@touch $@

$(VENV)/with-tests: pyproject.toml | $(VENV)/bin/python
	@$(INSTALL) -e '.[tests]'
	@touch $@

$(VENV)/with-checks: $(VENV)/with-tests
	@$(INSTALL) 'ruff>=0.6' 'mypy>=1.11'
	@touch $@

$(VENV)/with-bench: $(VENV)/with-tests
	@$(INSTALL) -e '.[bench]'
	@touch $@

$(VENV)/with-slow: $(VENV)/with-tests
	@$(INSTALL) -e '.[slow]'
	@touch $@

$(VENV)/with-release: | $(VENV)/bin/python
	@$(INSTALL) 'build>=1.2' 'twine>=6.1'
	@touch $@
