"""The toy model, as the engine's tests have it."""

from tests.engine.conftest import toy, toy_int8

__all__ = ["toy", "toy_int8"]
