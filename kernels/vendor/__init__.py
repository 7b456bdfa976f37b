"""Thin adapters to kernels of other projects, where these are installed; imports none of them."""
