"""The recipe of the embedded English model: synthesized speech in, a .nemo out. See docs/training.md.

cd plugin && python -m train --init en_starter.nemo --data SHARDS --held-out SHARDS --out DIR --minutes 60
"""
