"""Requests, scheduler, latent-cache pages, model, sampling, parallelism."""
