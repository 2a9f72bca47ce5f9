"""What takes too long for `make test`. Results are kept in proofs/, each with the hash of the source it speaks of."""
