"""How well a model writes what is said, and when a user sees it: WER, CER, latency, word times (__main__.py)."""
