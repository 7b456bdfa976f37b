"""Who carries out a step: the local, the distributed and the simulated executor."""
