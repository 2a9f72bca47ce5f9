"""Models: reading a .nemo, our own conformer, the bundle folder that a runtime loads, and the catalog of names."""
