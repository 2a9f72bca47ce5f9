"""A step that stays on the device from samples to tokens (fused.py), and rows of streams that run it (group.py)."""
