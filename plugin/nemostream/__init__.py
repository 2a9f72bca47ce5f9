"""Streaming speech recognition with cache-aware models: samples in, transcripts out."""
