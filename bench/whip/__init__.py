"""Load, loss and delay of WHIP sessions against our gateway (python -m bench.whip --help)."""
