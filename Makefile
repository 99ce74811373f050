# Every step from a fresh checkout; needs a POSIX shell and Python 3.11 to 3.14, and fetches the rest.

.DEFAULT_GOAL := help
.PHONY: help env demo up test lint browser prometheus servers screenshots lock clean bench-decisions bench-decisions-full bench-looks bench-evidence bench-routing bench-semantics

BIN := .venv/bin
TESTS := seatrial deployments tests
# Two processes: what waits for servers leaves a core to what computes.
PARALLEL := -n 2 --no-loadscope-reorder

# $(call timed,NAME,COMMAND) runs COMMAND, says how long it took and passes its exit code on.
timed = @began=$$(date +%s); $(2); code=$$?; printf '%-12s %s s\n' "$(1)" "$$(($$(date +%s) - began))"; exit $$code

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: .venv/ready ## make .venv from requirements.lock, if it is not up to date

# The programs in .venv/bin carry its path: a checkout that was moved or copied needs a new one.
ifneq ($(shell cat .venv/made-for 2>/dev/null),$(CURDIR)/.venv)
.PHONY: .venv/ready
endif

.venv/ready: requirements.lock pyproject.toml deployments/environment.sh
	@deployments/environment.sh install

demo: env ## three rollouts on the local stack: one promoted, one rolled back, one undecided
	@$(BIN)/python -m deployments.demo

up: env ## keep the local stack up until Ctrl-C and print where it answers
	@$(BIN)/python -m deployments.local

test: env browser prometheus servers ## run doctests and tests; TESTS=tests/unit runs a part
	$(call timed,tests,$(BIN)/python -m pytest $(PARALLEL) --doctest-modules $(TESTS))

lint: env ## check style, format and types
	$(call timed,ruff,$(BIN)/ruff check . && $(BIN)/ruff format --check .)
	$(call timed,mypy,$(BIN)/mypy)

browser: env ## find Chromium for the browser tests, or install it where apt-get may
	@$(BIN)/python -m deployments.chromium

prometheus: env ## find Prometheus for the tests of metrics, or unpack it where apt-get may
	@$(BIN)/python -m deployments.prometheus

servers: env ## make the environments of model servers in .venv-servers, for the tests that ask them
	@deployments/environment.sh servers

schemas: env ## write the JSON Schemas of config/schemas again, for editors
	@for kind in plan release contract policy settings; do $(BIN)/seatrial schema $$kind > config/schemas/$$kind.schema.json; done

screenshots: env browser ## take the pictures of docs/images again
	@$(BIN)/python -m deployments.screenshots

bench-decisions: env ## measure how well rollouts are decided, ours and other rules: two minutes on two cores
	$(call timed,benchmark,$(BIN)/python -m benchmarks.decisions --write)

bench-decisions-full: env ## the same with every stream and more rollouts of each: about six minutes
	$(call timed,benchmark,$(BIN)/python -m benchmarks.decisions --full --write)

bench-semantics: env ## measure how often a change of what a column means is found, and a season taken for one
	$(call timed,benchmark,$(BIN)/python -m benchmarks.semantics --write)

bench-looks: env ## measure what one look costs, and the looks at ten thousand rollouts: about two minutes
	$(call timed,benchmark,$(BIN)/python -m benchmarks.looks)

bench-evidence: env ## measure what counting logs costs: about four minutes; SIZES="50M" takes half an hour; THROUGHPUT=1 only a row's cost at 1M to 50M
	$(call timed,benchmark,$(BIN)/python -m benchmarks.evidence $(if $(THROUGHPUT),--throughput --sizes $(or $(SIZES),1M 5M 20M 50M),$(if $(SIZES),--sizes $(SIZES))))

bench-routing: env ## measure assignment, share changes under load and kills: about three minutes
	$(call timed,benchmark,$(BIN)/python -m benchmarks.routing)

lock: ## resolve pyproject.toml into requirements.lock, keeping what still fits
	@deployments/environment.sh lock

clean: ## delete everything that was made here: environment, data of the local stack, caches
	@if [ -e .venv/ready ]; then $(BIN)/python -m deployments.local --wipe; fi
	@rm -rf .venv .venv-servers .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
