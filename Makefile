# make setup | demo | test: each sets up what it needs first.
PY := .venv/bin/python

.PHONY: setup server demo test

setup: .venv/.setup-done

.venv/.setup-done: pyproject.toml scripts/setup.sh
	@sh scripts/setup.sh
	@touch $@

# A real livekit-server: from PATH, from .cache/bin, or built once (about two minutes).
server: setup
	@$(PY) -m nemostream_agent.livekit_server

demo: server
	@$(PY) -m nemostream_agent.demo

test: server
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports
	$(PY) -m pytest
