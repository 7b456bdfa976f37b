"""Closed-form plans of memory and time for a model on GPUs; imports no torch."""
