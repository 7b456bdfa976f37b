"""Several processes that answer requests, in front of one engine (`--api-workers`)."""
