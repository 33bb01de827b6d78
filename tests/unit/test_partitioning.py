"""murmur2, as the Java client computes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.core.partitioning import owner_partition, partition_for_key

# The vectors of Apache Kafka's own UtilsTest.testMurmur2 (signed 32-bit results).
JAVA_VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "murmur2"), JAVA_VECTORS.items())
@pytest.mark.parametrize("partitions", [1, 2, 3, 16, 1000, 2**31 - 1])
def test_a_key_goes_where_the_java_client_puts_it(key: bytes, murmur2: int, partitions: int) -> None:
    assert partition_for_key(key, partitions) == (murmur2 & 0x7FFFFFFF) % partitions


def _murmur2(data: bytes) -> int:
    """Utils.murmur2 of Apache Kafka's clients, line by line."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)


@given(st.binary(max_size=64), st.integers(min_value=1, max_value=10_000))
def test_every_key_of_any_bytes_agrees_with_the_published_algorithm(key: bytes, partitions: int) -> None:
    assert partition_for_key(key, partitions) == (_murmur2(key) & 0x7FFFFFFF) % partitions


@given(st.text(max_size=40), st.integers(min_value=1, max_value=64))
def test_the_owner_of_an_id_is_where_a_producer_puts_a_record_whose_key_it_is(
    id: str, partitions: int
) -> None:
    owner = owner_partition(id, partitions)
    assert 0 <= owner < partitions
    assert owner == partition_for_key(id.encode(), partitions)
