"""Interfaces of the paravirtual devices: consoles, xenstore, rings."""
