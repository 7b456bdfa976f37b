"""HTTP only: the OpenAI-compatible API, the command line. Imports no torch."""
