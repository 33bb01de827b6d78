"""Requests that aiokafka 0.14 does not offer in the version needed here, written with its own types.

Metadata v12 has topic ids (KIP-516); Produce v8 names the refused records of a batch (KIP-467);
DescribeTransactions tells how a transactional id's last transaction ended (KIP-664); DescribeGroups v4 has
the members' instance ids (KIP-345). Every broker from 3.0 on answers all four.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from io import BytesIO
from struct import Struct
from typing import Any, ClassVar, Final

from delaystream.adapters.internals.aiokafka import (
    Array,
    Boolean,
    Bytes,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    ProduceRequest_v8,
    Request,
    RequestStruct,
    Response,
    Schema,
    String,
    TaggedFields,
)


class _TopicId:
    """A topic id: 16 bytes, in the 22 characters in which Kafka's own tools print them."""

    @classmethod
    def encode(cls, value: str) -> bytes:
        return urlsafe_b64decode(value + "==")

    @classmethod
    def decode(cls, data: BytesIO) -> str:
        return urlsafe_b64encode(data.read(16)).decode().rstrip("=")

    @classmethod
    def repr(cls, value: str) -> str:
        return value


NO_TOPIC_ID = "A" * 22


class MetadataResponse_v12(Response):  # type: ignore[misc]  # noqa: N801 - named as aiokafka names its own
    """Brokers, and each topic with its id, its partitions' leaders and replicas."""

    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _TopicId),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class MetadataRequest_v12(RequestStruct):  # type: ignore[misc]  # noqa: N801 - as above
    """Asks for named topics, or for the brokers alone when none is named."""

    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = MetadataResponse_v12
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic_id", _TopicId),
                ("name", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class DescribeTopics(Request[MetadataRequest_v12]):  # type: ignore[misc]
    """Metadata of the named topics; never creates a topic (aiokafka's own request does, by default)."""

    API_KEY: ClassVar[int] = 3

    def __init__(self, topics: list[str], *, authorizations: bool) -> None:
        self._topics = topics
        self._authorizations = authorizations

    def build(self, request_struct_class: type[MetadataRequest_v12]) -> MetadataRequest_v12:
        """The request in the one version that is spoken here."""
        topics: list[tuple[str, str, dict[int, bytes]]] = [(NO_TOPIC_ID, name, {}) for name in self._topics]
        return request_struct_class(topics, False, self._authorizations, {})


_PRODUCE_BOUNDS: Final = Struct(">hii")
_COUNT: Final = Struct(">i")
_PARTITION: Final = Struct(">ii")
_string = String("utf-8").encode


class ProduceBatches_v8(ProduceRequest_v8):  # type: ignore[misc]  # noqa: N801 - as above
    """Copies its record batches into the request once; a schema would copy them six times.

    They are megabytes, and copying took a tenth of a busy worker's time.
    """

    def encode(self) -> bytes:
        """As the schema encodes it, byte for byte."""
        pieces: list[bytes | bytearray] = [
            _string(self.transactional_id),
            _PRODUCE_BOUNDS.pack(self.required_acks, self.timeout, len(self.topics)),
        ]
        for topic, partitions in self.topics:
            pieces += (_string(topic), _COUNT.pack(len(partitions)))
            for partition, batch in partitions:
                pieces += (_PARTITION.pack(partition, len(batch)), batch)
        return b"".join(pieces)


class Produce(Request[ProduceBatches_v8]):  # type: ignore[misc]
    """A produce request with acks=all inside a transaction."""

    API_KEY: ClassVar[int] = 0

    def __init__(self, transactional_id: str, timeout_ms: int, topics: list[tuple[str, Any]]) -> None:
        self._transactional_id = transactional_id
        self._timeout_ms = timeout_ms
        self._topics = topics

    def build(self, request_struct_class: type[ProduceBatches_v8]) -> ProduceBatches_v8:
        """The request in the one version that is spoken here."""
        return request_struct_class(self._transactional_id, -1, self._timeout_ms, self._topics)


class DescribeTransactionsResponse_v0(Response):  # type: ignore[misc]  # noqa: N801 - as above
    """State, identity and partitions of each transactional id."""

    API_KEY = 65
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "transactions",
            CompactArray(
                ("error_code", Int16),
                ("transactional_id", CompactString("utf-8")),
                ("state", CompactString("utf-8")),
                ("timeout_ms", Int32),
                ("start_time_ms", Int64),
                ("producer_id", Int64),
                ("producer_epoch", Int16),
                (
                    "topics",
                    CompactArray(
                        ("topic", CompactString("utf-8")),
                        ("partitions", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class DescribeTransactionsRequest_v0(RequestStruct):  # type: ignore[misc]  # noqa: N801 - as above
    """Asks the coordinator of the transactional ids."""

    API_KEY = 65
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = DescribeTransactionsResponse_v0
    SCHEMA = Schema(
        ("transactional_ids", CompactArray(CompactString("utf-8"))),
        ("tags", TaggedFields),
    )


_Struct = DescribeTransactionsRequest_v0


class DescribeTransaction(Request[_Struct]):  # type: ignore[misc]
    """How the last transaction of one transactional id stands."""

    API_KEY: ClassVar[int] = 65

    def __init__(self, transactional_id: str) -> None:
        self._transactional_id = transactional_id

    def build(
        self, request_struct_class: type[DescribeTransactionsRequest_v0]
    ) -> DescribeTransactionsRequest_v0:
        """The request in the one version that is spoken here."""
        return request_struct_class([self._transactional_id], {})


class DescribeGroupsResponse_v4(Response):  # type: ignore[misc]  # noqa: N801 - as above
    """State and members of each group."""

    API_KEY = 15
    API_VERSION = 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            Array(
                ("error_code", Int16),
                ("group_id", String("utf-8")),
                ("state", String("utf-8")),
                ("protocol_type", String("utf-8")),
                ("protocol", String("utf-8")),
                (
                    "members",
                    Array(
                        ("member_id", String("utf-8")),
                        ("group_instance_id", String("utf-8")),
                        ("client_id", String("utf-8")),
                        ("client_host", String("utf-8")),
                        ("member_metadata", Bytes),
                        ("member_assignment", Bytes),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
    )


class DescribeGroupsRequest_v4(RequestStruct):  # type: ignore[misc]  # noqa: N801 - as above
    """Asks the coordinator of the groups."""

    API_KEY = 15
    API_VERSION = 4
    RESPONSE_TYPE = DescribeGroupsResponse_v4
    SCHEMA = Schema(
        ("groups", Array(String("utf-8"))),
        ("include_authorized_operations", Boolean),
    )


class DescribeGroup(Request[DescribeGroupsRequest_v4]):  # type: ignore[misc]
    """Who the members of one group are."""

    API_KEY: ClassVar[int] = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[DescribeGroupsRequest_v4]) -> DescribeGroupsRequest_v4:
        """The request in the one version that is spoken here."""
        return request_struct_class([self._group], False)
