# Everything needs only Python 3.11 to 3.13 and make. `make help` lists the targets.
PYTHON ?= $(shell sh scripts/find-python.sh)
VENV   ?= .venv
RUN     = $(VENV)/bin/python
SECONDS ?= 60
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help setup run test lint docs unit test-pythons test-containers soak bench fuzz lock package audit image clean test-page screenshots test-deploy test-cluster chart

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-16s %s\n' "$$name" "$$text"; done

run: ## a real Kafka, a worker, a console and a few delayed events; ARGS="--port 29092 --help ..."
	@python="$(PYTHON)"; [ -n "$$python" ] && exec "$$python" scripts/run.py $(VENV) $(ARGS)

test: setup ## every check and test, on this Python
	@$(RUN) scripts/checks.py all

setup: ## .venv with what the tests need (the targets do it themselves; `run` installs only what runs)
	@python="$(PYTHON)"; [ -n "$$python" ] && "$$python" scripts/environment.py $(VENV) requirements/dev.txt

lint: setup ## style, types, import direction
	@$(RUN) scripts/checks.py lint

docs: setup ## the documentation as a site, in build/site: the same check as in `make test`
	@$(RUN) scripts/checks.py docs

unit: setup ## unit tests and simulation alone
	@$(RUN) scripts/checks.py unit

test-pythons: setup ## unit tests and simulation on every other supported Python that is here
	@$(RUN) scripts/checks.py pythons

test-page: setup ## the console's pages in a real browser (needs Chromium, or Debian's apt as root)
	@"$(PYTHON)" scripts/environment.py $(VENV) requirements/dev.txt requirements/page.txt
	@$(RUN) scripts/checks.py page

screenshots: setup ## renew the pictures of the console's pages in docs/screenshots
	@"$(PYTHON)" scripts/environment.py $(VENV) requirements/dev.txt requirements/page.txt
	@DELAYSTREAM_TEST_SCREENSHOTS=1 $(RUN) -m pytest -q tests/page/test_pages.py $(ARGS)

test-deploy: setup ## container, Compose, chart, rules, dashboards, with the ecosystem's tools (needs Go, Debian's apt, node)
	@"$(PYTHON)" scripts/environment.py $(VENV) requirements/dev.txt requirements/deploy.txt
	@$(RUN) scripts/checks.py deploy

test-cluster: setup ## install, upgrade, roll back, evict and uninstall the chart on a real Kubernetes API server (built once: 6 to 20 minutes)
	@"$(PYTHON)" scripts/environment.py $(VENV) requirements/dev.txt requirements/deploy.txt
	@$(RUN) scripts/cluster_tools.py
	@$(RUN) -m pytest -q tests/cluster $(ARGS)

chart: setup ## renew the generated parts of the chart: schema, topics, README
	@$(RUN) -m scripts.chart
	@"$$($(RUN) scripts/deploy_tools.py helm-docs | sed 's/^[^ ]* *//')" --chart-search-root helm/delaystream --log-level error

test-containers: setup ## the integration tests on brokers in containers (needs a Docker engine)
	@$(RUN) -c 'import docker; docker.from_env().ping()' 2>/dev/null || { echo "No Docker engine answers (DOCKER_HOST, or the default socket): nothing was tested." >&2; exit 1; }
	@DELAYSTREAM_TEST_BROKER=containers $(RUN) -m pytest tests/integration tests/conformance/test_broker.py $(ARGS)

soak: setup ## faults for SECONDS=... over two workers and three brokers, then count what was lost, early or doubled
	@DELAYSTREAM_SOAK_SECONDS=$(SECONDS) $(RUN) -m pytest -s --timeout=$$(( 2 * $(SECONDS) + 900 )) tests/integration/test_soak.py $(ARGS)

fuzz: setup ## each fuzz target for SECONDS=..., what it learns is kept in build/fuzz; ARGS="TARGET" (Linux on x86-64)
	@"$(PYTHON)" scripts/environment.py $(VENV) requirements/dev.txt requirements/fuzz.txt
	@$(RUN) -m tests.fuzz --seconds $(SECONDS) $(ARGS)

bench: setup ## throughput, lateness, memory and recovery; writes docs/benchmarks
	@"$(PYTHON)" scripts/environment.py $(VENV) requirements/dev.txt requirements/bench.txt
	@$(RUN) -m tests.benchmarks $(ARGS)

lock: ## renew requirements/*.txt from pyproject.toml; ARGS="--upgrade"
	@"$(PYTHON)" scripts/locks.py $(ARGS)

package: setup ## build the wheel into dist/, and its bill of materials (CycloneDX) beside it
	@$(RUN) -m hatchling build -t wheel
	@$(RUN) scripts/sbom.py

audit: setup ## look up known vulnerabilities of all that is locked; fails when it could check nothing (needs the network)
	@$(RUN) scripts/audit.py

image: ## build the container image, tagged with the version (needs a Docker engine)
	@version=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' delaystream/__init__.py); \
	docker build --build-arg VERSION="$$version" --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
	  -t "delaystream:$$version" -t delaystream:latest $(ARGS) .

clean: ## remove the results of the targets above, except the embedded broker's state and cache
	rm -rf .venv .venv-* .venv.lock dist build/fuzz .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
