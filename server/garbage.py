"""Python's collector of reference cycles, set for a process that lives long and allocates much."""

import gc

# A step's outputs for some thousand streams are one burst of objects, all of which go at once.
_YOUNG_OBJECTS = 50_000


def settle() -> None:
    """Leave what start-up has made out of all later collections, and collect less often.

    What requests leave behind is freed by its reference counts; cycles are few. A collection in the
    middle of a burst would look at all objects of all streams, and hold all streams up.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)
