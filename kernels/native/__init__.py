"""Kernels in C++ for the CPU, each batch-invariant; without the built library they are rejected."""
