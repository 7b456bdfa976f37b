"""Triton kernels for Hopper GPUs; nothing here is imported before one of them is used."""
