"""State that is on the move to another application: nothing fires from it."""

import pytest

from delaystream.codec.envelope import FORMAT, Meta, TransferState, encode
from delaystream.codec.keys import META
from delaystream.engine.failures import Misconfigured
from delaystream.engine.ports import Marker
from delaystream.engine.state.partition_state import PartitionState
from delaystream.testing.store import MemoryStateStores


def load(transfer_state: str) -> PartitionState:
    store = MemoryStateStores().open(0)
    meta = Meta(4, FORMAT, app_id="app", transfer="t-1", transfer_state=transfer_state)
    store.write([(META, encode(meta))], [], Marker("id", 1, 0, b""))
    return PartitionState(store, 4, "app")


@pytest.mark.parametrize(
    ("transfer_state", "sentence"),
    [(TransferState.EXPORTED, "exported for good"), (TransferState.IMPORTING, "has not ended")],
)
def test_a_worker_refuses_what_is_elsewhere_or_not_all_here(transfer_state: str, sentence: str) -> None:
    """It would fire twice, or with a part of what is pending; the sentence names the transfer."""
    with pytest.raises(Misconfigured, match=f"t-1.*{sentence}|{sentence}.*t-1"):
        load(transfer_state)


@pytest.mark.parametrize("transfer_state", ["", TransferState.IMPORTED])
def test_a_worker_takes_what_is_all_here(transfer_state: str) -> None:
    """Wherever it came from."""
    assert load(transfer_state).meta_stored
