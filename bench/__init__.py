"""Measurements, one module each: `python -m bench.NAME` prints a table and writes bench/NAME.json."""
