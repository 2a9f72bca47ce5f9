"""The protocols of speech servers from a client's side: what is sent, what the answers mean, and the line between.

`client` speaks them to a gateway, and the benchmark to any server. The address says which one it is (address.py).
"""
