"""Processes that can be killed: what is left when one has been."""

import asyncio
import gc
import warnings

from leadline.engine.child_pool import Child


def test_an_ended_child_leaves_nothing_open() -> None:
    async def main() -> None:
        child = Child("this", 2**16, is_silent=True)  # it says more than anybody reads
        await child.start()
        await child.end()
        assert child.process_id is None

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(5):
            asyncio.run(main())
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
