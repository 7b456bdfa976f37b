"""Tensors in, tensors out. `api` has the contracts, `select` chooses, once, at start."""
