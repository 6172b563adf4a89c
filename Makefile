# make demo      a broker, two workers and a client on this machine, for some seconds
# make test      the tests but for the slow ones; ARGS="-k name" goes to pytest
# make test-slow  the slow ones: hosts cut off, chaos, the benchmarks, the wheel; some skip without root or the network
# make test-all  what `make test` does; and on every other CPython of VERSIONS that there is, but for what makes no
#                difference, and with what is CPython's own
# make test-oldest  what matters most, with the oldest of what pyproject.toml allows
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
OLDEST = tests/wire/test_wire.py tests/transport/test_connection.py tests/transport/test_identity.py \
	tests/broker/test_broker.py tests/client/test_client.py tests/client/test_link.py \
	tests/client/test_leave_and_fetch.py tests/worker/test_worker.py tests/commands/test_completion.py

PIP = $(VENV)/bin/python -m pip --quiet --disable-pip-version-check
PYTEST = $(VENV)/bin/python -m pytest -n 4 --dist loadfile
TOO_OLD = "Python 3.10 or newer is needed: make PYTHON=python3.12 ..."

.PHONY: demo test test-slow test-all test-oldest check bench bench-peers dist clean

demo: $(VENV)/with-pyzmq
	@$(VENV)/bin/python tests/demo.py

test: $(VENV)/with-dev
	@$(PYTEST) -m "$(MARKS)" $(ARGS)

test-slow: $(VENV)/with-slow
	@$(PYTEST) -m slow $(ARGS)

check: $(VENV)/with-dev
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy --strict

bench: $(VENV)/with-dev
	@$(VENV)/bin/python -m bench $(ARGS)

bench-peers: $(VENV)/with-bench
	@$(VENV)/bin/python -m bench.peers $(ARGS)

# A name on the PATH may be a shim for what is not there, or lack what makes an environment: try it.
test-all: test
	@for version in $(VERSIONS); do \
		if ! python$$version -c 'import ensurepip, venv, zlib' 2>/dev/null; then \
			echo "python$$version: not here"; \
		elif $(VENV)/bin/python -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$$version')"; then \
			echo "python$$version: tested above"; \
		else \
			echo "python$$version:"; \
			$(MAKE) --no-print-directory test PYTHON=python$$version VENV=.venv-$$version \
				MARKS="(not slow and not once) or each" || exit 1; \
		fi; \
	done

# The oldest pyzmq has wheels for these alone.
test-oldest:
	@for version in 3.10 3.11; do \
		if python$$version -c 'import ensurepip, venv, zlib' 2>/dev/null; then \
			exec $(MAKE) --no-print-directory test PYTHON=python$$version VENV=.venv-oldest \
				CONSTRAINTS="-c tests/oldest.txt" ARGS="$(OLDEST) $(ARGS)"; \
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

$(VENV)/with-pyzmq:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and $(TOO_OLD) or 0)'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install $(CONSTRAINTS) pyzmq
	@touch $@

$(VENV)/with-dev: $(VENV)/with-pyzmq pyproject.toml
	@$(PIP) install $(CONSTRAINTS) -e '.[dev]'
	@touch $@

$(VENV)/with-bench: $(VENV)/with-dev
	@$(PIP) install -e '.[bench]'
	@touch $@

$(VENV)/with-slow: $(VENV)/with-dev
	@$(PIP) install -e '.[slow]'
	@touch $@

$(VENV)/with-release: $(VENV)/with-pyzmq
	@$(PIP) install 'build>=1.2' 'twine>=6.1'
	@touch $@
