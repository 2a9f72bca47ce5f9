# make setup | pages | demo | test | proof: each sets up what it needs first.
PY := .venv/bin/python

.PHONY: setup pages server demo test proof

setup: .venv/.setup-done

.venv/.setup-done: pyproject.toml scripts/setup.sh
	@sh scripts/setup.sh
	@touch $@

# The web pages, built into the gateway by Node from PATH or from a wheel, where their source has changed.
pages: setup
	@$(PY) hatch_build.py

# A real livekit-server: from PATH, from .cache/bin, or built once (about two minutes).
server: setup
	@$(PY) -m nemostream_agent.livekit_server

# make demo ARGS=--headless speaks a clip into the pages, on a machine without a screen.
demo: pages
	@$(PY) -m nemostream_agent.demo $(ARGS)

test: server pages
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports
	$(PY) -m pytest -n 2

# What takes long; results are kept in proofs/. NeMo, the reference, gets an environment of its own under .cache.
proof: setup
	$(PY) -m tests.proof
