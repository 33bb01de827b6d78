"""The bounds of a transactional producer."""

from __future__ import annotations

import msgspec

from delaystream.adapters.transactions.batches import COMPRESSION_CODECS
from delaystream.adapters.transactions.coordinator import Backoff


class ProducerSettings(msgspec.Struct, frozen=True):
    """Bounds of a producer; durations in ms, sizes in bytes.

    Each wait ends before the broker's own timeout.
    """

    #: after this the broker aborts the transaction and fences us
    transaction_timeout_ms: int = 10_000
    #: from a transaction's start to the last answer to a write
    write_timeout_ms: int = 5_000
    #: of one request; less than the above, so that a silent broker is asked once more
    request_timeout_ms: int = 2_500
    #: from a transaction's start to its end
    commit_timeout_ms: int = 8_000
    #: for InitProducerId, which waits until an earlier owner's transaction is completed
    fence_timeout_ms: int = 30_000
    #: for the abort of an open transaction when the producer is closed
    abort_timeout_ms: int = 1_000
    #: less than a topic's default max.message.bytes
    max_batch_bytes: int = 1_000_000
    #: a larger record is refused here; beyond socket.request.max.bytes a broker would close the connection
    #: instead
    max_record_bytes: int = 64 * 1024 * 1024
    compression: str = "none"
    retry_backoff_min_ms: int = 1
    retry_backoff_max_ms: int = 100

    def __post_init__(self) -> None:
        if not self.write_timeout_ms < self.commit_timeout_ms < self.transaction_timeout_ms:
            raise ValueError("write_timeout_ms < commit_timeout_ms < transaction_timeout_ms must hold")

    def backoff(self) -> Backoff:
        """Pauses between attempts."""
        return Backoff(self.retry_backoff_min_ms, self.retry_backoff_max_ms)

    @property
    def compression_codec(self) -> int:
        """The codec's number in a batch's attributes."""
        return COMPRESSION_CODECS[self.compression]
