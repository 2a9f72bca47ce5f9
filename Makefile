# make setup | demo | test | proof: each sets up what it needs first.
PY := .venv/bin/python

.PHONY: setup server demo test proof

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

# What takes long; results are kept in proofs/. NeMo, the reference, gets an environment of its own under .cache.
proof: setup
	$(PY) -m tests.proof
