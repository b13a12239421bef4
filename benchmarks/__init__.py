"""Benchmarks: ``mediaflow bench dsp`` and ``mediaflow bench load``; each prints its tables."""
