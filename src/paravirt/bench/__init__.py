"""Benchmarks: boots, system calls, traps, and ratios to other ways of running the same guest (``paravirt bench``)."""
