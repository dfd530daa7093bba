"""Benchmarks of the gateway against a fast stand-in engine; `make bench` runs them. Not part of the package."""
