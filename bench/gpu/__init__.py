"""How many streams one GPU carries, and where the time of a step goes: python -m bench.gpu."""
