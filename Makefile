# make demo and make test are all a newcomer needs. Each target sets up .venv by itself;
# the recipes are plain pip and can be run by hand, line by line.

PYTHON ?= python3
BIN := .venv/bin
ADAPTERS := asyncio gevent twisted blocking
# What has a twin in C is tried in both languages; the codec by its own tests.
TWINS := $(foreach name,connection datagram framings pool pool_machine requests session tapped testing,tests/test_$(name).py)
DEMO := . transports/sockets transports/asyncio transports/blocking tap cli
# Tests wait for sockets more than they compute.
SPREAD := -n 4 --dist loadfile
ALL := . transports/sockets $(ADAPTERS:%=transports/%) tap cluster cli conformance examples/trio_adapter examples/tornado_adapter

.PHONY: demo test lint types conformance mutants mutants-adapters coverage mutation bench bench-quick bench-behaviour \
    bench-guard serial-damage cluster-seeds cluster-brokers soak sanitize fuzz simulate docs manual wheels release-check \
    version clean

demo: .venv/installed
	$(BIN)/packetcore demo

# A device gateway with its page and a few devices: examples/gateway.
.PHONY: gateway
gateway: .venv/gateway
	$(BIN)/python -m examples.gateway

# Two gateways over NATS, devices that move between them, and a page to watch and command them: examples/fleet.
.PHONY: fleet
fleet: .venv/ready
	cd examples && $(CURDIR)/$(BIN)/python -m fleet

test: .venv/ready
	PACKETCORE_PURE=1 PACKETCORE_NO_UVLOOP=1 $(BIN)/pytest -q $(SPREAD) $(TWINS) \
	    --pyargs packetcore_conformance --transport asyncio --transport trio --transport tornado
	$(BIN)/pytest -q $(SPREAD) $(ADAPTERS:%=--transport %)

# The imports need Python 3.11.
lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/ready
	$(BIN)/mypy

conformance: .venv/ready
	$(BIN)/pytest --pyargs packetcore_conformance $(ADAPTERS:%=--transport %)

mutants: .venv/ready
	$(BIN)/python conformance/mutants.py

# Faults in adapters: which of them the kit notices.
mutants-adapters: .venv/ready
	$(BIN)/python conformance/mutants_adapters.py

# The same as `make test`, each branch counted: all of the core's have to be gone through, and 95 % of each
# adapter's. Takes eight minutes.
COVER := COVERAGE_FILE=$(CURDIR)/build/coverage/data $(BIN)/coverage
coverage: .venv/ready
	rm -rf build/coverage && mkdir -p build/coverage
	PACKETCORE_PURE=1 PACKETCORE_NO_UVLOOP=1 $(COVER) run -m pytest -q $(SPREAD) $(TWINS) --pyargs packetcore_conformance --transport asyncio
	$(COVER) run -m pytest -q $(SPREAD) $(ADAPTERS:%=--transport %)
	$(COVER) combine --quiet build/coverage
	$(COVER) report --include='packetcore/*' --fail-under=100
	for each in sockets $(ADAPTERS); do $(COVER) report --include="transports/$$each/*" --fail-under=95 || exit 1; done

# One change at a time in the core and in the ready layer, and whether a test notices: takes hours, and goes on where
# it was stopped. docs/testing.md tells of those that none noticed.
mutation: .venv/ready
	$(BIN)/python tests/mutation.py core
	$(BIN)/python tests/mutation.py sockets

bench: .venv/ready
	$(BIN)/python benchmarks/run_all.py

# The same in about two minutes, with few rounds.
bench-quick: .venv/ready
	$(BIN)/python benchmarks/run_all.py --quick

# Not how fast it is but what it does: with peers that do not read, and when a server is gone.
bench-behaviour: .venv/ready
	$(BIN)/python benchmarks/slow_peer.py
	$(BIN)/python benchmarks/outage.py

# Millions of bytes over pseudo-terminals, 1 % of them changed: whether all other frames arrive.
serial-damage: .venv/ready
	$(BIN)/python benchmarks/serial_damage.py

# A thousand clusters in one thread each, with all that may go wrong: whether each identity has one holder in the end.
cluster-seeds: .venv/ready
	$(BIN)/python -m tests.cluster_simulation --seeds 1000

# Three brokers that are one, each killed while it leads: how long a fleet waits. Takes a minute.
cluster-brokers: .venv/ready
	$(BIN)/python -m tests.cluster_of_brokers

soak: .venv/ready
	for name in $(ADAPTERS); do $(BIN)/python benchmarks/soak.py --transport $$name --minutes 5 || exit 1; done

bench-guard: .venv/ready
	$(BIN)/python benchmarks/guard.py

# The codec in C under sanitizers, with failing allocations, and for leaks; needs gcc, and takes clang too.
sanitize: .venv/ready
	$(BIN)/python tests/sanitize.py

# Inputs that break a law of the codec, sessions or parsers, looked for in so many SECONDS together; TARGETS for
# some of them alone (docs/testing.md).
SECONDS ?= 60
fuzz: .venv/fuzz
	$(BIN)/python -m fuzz --seconds $(SECONDS) $(TARGETS)

# The product on a network in memory, by seeds; one that fails prints the command that repeats it.
SEEDS ?= 1000
simulate: .venv/ready
	$(BIN)/python -m packetcore_conformance.simulation --seeds $(SEEDS)

# The manual page of the command, from what its parser takes.
manual: .venv/ready
	$(BIN)/python cli/manual.py

# The site, in build/docs/index.html: no warning, every link within it checked. Those that lead out are listed.
docs: .venv/docs
	$(BIN)/sphinx-build -c docs -n -W --keep-going -q -j auto . build/docs
	@echo "build/docs/index.html; links that lead out, not checked: build/external-links.txt"

# What a release needs. The core comes as a wheel with the extension for this platform, as one
# without it for all others, and as source. On Linux the first gets the tag that its symbols
# allow, and neither symbols nor a path to look for libraries in, which some builds of Python ask of
# every extension; those for other platforms are built by cibuildwheel (docs/releasing.md).
PLAIN_LINK := $(if $(filter Linux,$(shell uname)),LDSHARED="$(CC) -shared")
wheels: .venv/ready
	rm -rf dist
	for each in . transports/sockets $(ADAPTERS:%=transports/%) tap cluster cli conformance; do \
	    $(PLAIN_LINK) $(BIN)/python -m build --outdir dist $$each || exit 1; done
	PACKETCORE_PURE=1 $(BIN)/python -m build --wheel --outdir dist .
	for each in dist/packetcore-*-linux_*.whl; do test ! -e "$$each" || \
	    { PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/auditwheel repair --strip --wheel-dir dist "$$each" && rm "$$each"; } || exit 1; done

# All of the above, and whether it can be released: metadata, contents, and each wheel alone in an environment of its own.
release-check: wheels .venv/release
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tests/release.py dist

# The version of all distributions, wherever it stands: make version TO=0.2.0
version: .venv/release
	@echo '$(TO)' | grep -Eqx '[0-9]+[.][0-9]+[.][0-9]+' || { echo 'a version is named as in: make version TO=0.2.0' >&2; exit 2; }
	$(BIN)/bump-my-version bump --new-version $(TO)

clean:
	rm -rf build dist .nox packetcore/_speedups.*.so packetcore/_speedups.*.pyd .venv .fuzz .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/pip $(DEMO:%=%/pyproject.toml) setup.py packetcore/_speedups.c $(wildcard packetcore/_c/*.h)
	$(BIN)/pip install --quiet $(DEMO:%=-e %)
	touch $@

.venv/gateway: .venv/installed examples/gateway/requirements.txt
	$(BIN)/pip install --quiet -r examples/gateway/requirements.txt
	touch $@

.venv/ready: .venv/bin/pip $(ALL:%=%/pyproject.toml) setup.py packetcore/_speedups.c $(wildcard packetcore/_c/*.h) requirements-dev.txt
	$(BIN)/pip install --quiet $(ALL:%=-e %) -r requirements-dev.txt
	touch $@

.venv/release: .venv/ready requirements-release.txt
	$(BIN)/pip install --quiet -r requirements-release.txt
	touch $@

.venv/docs: .venv/ready requirements-docs.txt
	$(BIN)/pip install --quiet -r requirements-docs.txt
	touch $@

.venv/fuzz: .venv/ready requirements-fuzz.txt
	$(BIN)/pip install --quiet -r requirements-fuzz.txt
	touch $@
