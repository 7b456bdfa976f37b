"""What ends a benchmark before there is a result."""


class BenchError(Exception):
    """The benchmark cannot be run as it was asked for; says why and what to do."""
