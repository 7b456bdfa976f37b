"""Which data-parallel rank serves a request."""
