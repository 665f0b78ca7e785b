"""Stability: many boots in a row, and a guest that works for a long time beside one that only spins."""
