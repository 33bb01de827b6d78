"""The partition of a key: murmur2, as the Java client's default partitioner computes it.

Source: `org.apache.kafka.common.utils.Utils.murmur2` and `toPositive` in Apache Kafka's clients.
"""

from murmurhash2 import murmurhash2

_SEED = 0x9747B28C


def partition_for_key(key: bytes, partitions: int) -> int:
    """The partition, from 0 to `partitions` - 1, that the Java client puts `key` on (`partitions` >= 1)."""
    return (murmurhash2(key, _SEED) & 0x7FFFFFFF) % partitions


def owner_partition(id: str, partitions: int) -> int:
    """The partition whose processor owns the schedule `id`; the same for all request topics.

    A producer with Java's default partitioner puts a record whose key is the id on this partition. Such a
    request is at its owner already.
    """
    return partition_for_key(id.encode(), partitions)
