"""WHIP: what the gateway makes of a browser's packets."""
