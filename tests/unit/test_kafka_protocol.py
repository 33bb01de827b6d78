"""Requests in an encoding of our own are those of the schema, byte for byte."""

from aiokafka.protocol.produce import ProduceRequest_v8
from hypothesis import given
from hypothesis import strategies as st

from delaystream.adapters.kafka.protocol import Produce

batches = st.binary(max_size=200).map(bytearray)
partitions = st.lists(st.tuples(st.integers(min_value=0, max_value=2**31 - 1), batches), max_size=4)
topics = st.lists(st.tuples(st.text(max_size=20), partitions), max_size=4)


@given(st.text(max_size=20), st.integers(min_value=0, max_value=2**31 - 1), topics)
def test_a_produce_request_is_encoded_as_its_schema_says(
    transactional_id: str, timeout_ms: int, content: list[tuple[str, list[tuple[int, bytearray]]]]
) -> None:
    request = Produce(transactional_id, timeout_ms, content).prepare({0: (0, 12)})
    assert request.encode() == ProduceRequest_v8(transactional_id, -1, timeout_ms, content).encode()
