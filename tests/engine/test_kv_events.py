"""Events about cached pages, as a router that speaks vLLM's schema reads them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadline.engine.errors import ConfigError
from leadline.engine.kv_event_publisher import KVEventPublisher
from leadline.engine.kv_events import KVEventLog, external_hash
from leadline.engine.kv_events_config import KVEventsConfig, parse_kv_events_config


# The subscriber's side, written down from vLLM's documented example of one.
class EventBatch(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    ts: float
    events: list[Any]


class KVCacheEvent(msgspec.Struct, array_like=True, omit_defaults=True, gc=False, tag=True):
    pass


class BlockStored(KVCacheEvent):
    block_hashes: list[bytes | int]
    parent_block_hash: bytes | int | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None


class BlockRemoved(KVCacheEvent):
    block_hashes: list[bytes | int]
    medium: str | None


class AllBlocksCleared(KVCacheEvent):
    pass


class KVEventBatch(EventBatch):
    events: list[BlockStored | BlockRemoved | AllBlocksCleared]


class Router:
    """Rebuilds a server's caches from its events."""

    def __init__(self) -> None:
        self.prefixes: dict[tuple[str | None, bytes | int], tuple[int, ...]] = {}

    def take(self, payload: bytes) -> None:
        for event in msgspec.msgpack.decode(payload, type=KVEventBatch).events:
            if isinstance(event, AllBlocksCleared):
                self.prefixes.clear()
            elif isinstance(event, BlockRemoved):
                for block_hash in event.block_hashes:
                    del self.prefixes[event.medium, block_hash]
            else:
                self._store(event)

    def _store(self, event: BlockStored) -> None:
        assert len(event.token_ids) == event.block_size * len(event.block_hashes)
        parent = event.parent_block_hash
        for i, block_hash in enumerate(event.block_hashes):
            assert (event.medium, block_hash) not in self.prefixes, "stored twice"
            known = next((p for (_, h), p in self.prefixes.items() if h == parent), ())
            tokens = event.token_ids[i * event.block_size : (i + 1) * event.block_size]
            self.prefixes[event.medium, block_hash] = (*known, *tokens)
            parent = block_hash


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    prompts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=14), min_size=1, max_size=12),
    num_host_pages=st.sampled_from([0, 3]),
    reset_after=st.integers(0, 12),
)
def test_a_router_knows_what_is_cached(
    engine: Any,
    request_of: Any,
    prompts: list[list[int]],
    num_host_pages: int,
    reset_after: int,
) -> None:
    log = KVEventLog(2)
    run = engine(
        num_pages=12, page_size=2, num_host_pages=num_host_pages, scheduling={"events": log}
    )
    router = Router()
    encode = msgspec.msgpack.Encoder().encode
    for i, prompt in enumerate(prompts):
        run.core.submit(request_of(str(i), prompt, 4))
        if i == reset_after:
            run.core.reset_prefix_cache()
        while run.core.has_work():
            run.step()
            router.take(encode([0.0, log.take()]))
    kv = run.scheduler._kv
    cached = {external_hash(page_hash) for page_hash in kv._prefix_cache._page_ids}
    assert {h for medium, h in router.prefixes if medium == "GPU"} == cached
    kept = {external_hash(page_hash) for page_hash in kv.host._places}
    assert {h for medium, h in router.prefixes if medium == "CPU"} == kept


def test_neighbours_share_an_event(engine: Any, request_of: Any) -> None:
    log = KVEventLog(2)
    run = engine(page_size=2, scheduling={"events": log})
    run.core.submit(request_of("a", range(9), 1))
    run.run()
    (event,) = log.take()
    assert len(event.block_hashes) == 4
    assert event.token_ids == list(range(8))
    assert event.parent_block_hash is None


def test_salts_are_told(engine: Any, request_of: Any) -> None:
    log = KVEventLog(2)
    run = engine(page_size=2, scheduling={"events": log})
    run.core.submit(request_of("a", range(5), 1, cache_salt="pepper"))
    run.run()
    assert [event.extra_keys for event in log.take()] == [[["pepper"]], [["pepper"]]]


@pytest.fixture
def published(tmp_path: Path) -> Iterator[tuple[KVEventLog, KVEventPublisher, KVEventsConfig]]:
    config = KVEventsConfig(
        enable_kv_cache_events=True,
        endpoint=f"ipc://{tmp_path}/events",
        replay_endpoint=f"ipc://{tmp_path}/replay",
        buffer_steps=3,
        topic="cache",
    )
    log = KVEventLog(2)
    publisher = KVEventPublisher(config, log, data_parallel_rank=0)
    yield log, publisher, config
    publisher.close()


def test_subscribers_get_numbered_batches(published: Any) -> None:
    log, publisher, config = published
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.connect(config.endpoint)
        subscriber.subscribe("cache")
        publisher.publish()  # nothing to tell, nothing is sent
        for _ in range(200):  # a subscription takes a moment to arrive
            log.cleared()
            publisher.publish()
            if subscriber.poll(20):
                break
        topic, first, payload = subscriber.recv_multipart()
        assert topic == b"cache"
        assert msgspec.msgpack.decode(payload, type=KVEventBatch).events == [AllBlocksCleared()]
        # Dynamo's decoder takes exactly these three, hashes being 64-bit integers.
        time_s, events, rank = msgspec.msgpack.decode(payload)
        assert (type(time_s), events, rank) == (float, [["AllBlocksCleared"]], 0)
        log.cleared()
        publisher.publish()
        while subscriber.poll(200):
            _, last, _ = subscriber.recv_multipart()
        assert int.from_bytes(last, "big") > int.from_bytes(first, "big")


def test_missed_batches_are_replayed(published: Any) -> None:
    log, publisher, config = published
    for _ in range(5):
        log.cleared()
        publisher.publish()
    with zmq.Context() as context, context.socket(zmq.DEALER) as asker:
        asker.setsockopt(zmq.LINGER, 0)
        asker.connect(config.replay_endpoint)
        asker.send_multipart((b"", (0).to_bytes(8, "big")))
        numbers = []
        while not numbers or numbers[-1] != -1:
            assert asker.poll(5000)
            _, number, payload = asker.recv_multipart()
            numbers.append(int.from_bytes(number, "big", signed=True))
        assert numbers == [2, 3, 4, -1]
        assert payload == b""


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "kv_events_config"),
        ('{"endpoints": "tcp://*:1"}', "endpoint"),
        ('{"publisher": "kafka"}', "kafka"),
        ('{"buffer_steps": 0}', "buffer_steps"),
        ('{"enable_kv_cache_events": "yes"}', "bool"),
    ],
)
def test_bad_configs_say_what_is_wrong(text: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        parse_kv_events_config(text)


def test_each_data_parallel_rank_has_addresses_of_its_own() -> None:
    config = KVEventsConfig(endpoint="tcp://*:5557", replay_endpoint="ipc:///tmp/replay")
    assert config.of_rank(0) == config
    third = config.of_rank(3)
    assert (third.endpoint, third.replay_endpoint) == ("tcp://*:5560", "ipc:///tmp/replay-dp3")
    assert KVEventsConfig().of_rank(1).replay_endpoint is None


def test_an_address_in_use_is_an_error(published: Any) -> None:
    log = published[0]
    taken = KVEventsConfig(endpoint="tcp://203.0.113.1:1", enable_kv_cache_events=True)
    with pytest.raises(ConfigError, match="choose another address"):
        KVEventPublisher(taken, log)
