"""Ranks, sizes and collectives, as data."""
