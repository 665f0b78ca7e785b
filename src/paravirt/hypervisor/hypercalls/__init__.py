"""Hypercalls, one module for each family. Where they are carried out: ``native.py`` and ``registry.py``."""
