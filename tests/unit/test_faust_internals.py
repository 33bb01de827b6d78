"""What delaystream takes from inside Faust is there, and means what it is taken for.

Each contract is run twice: with the library as it is, where it holds, and with a library that does not call
what stands in its place any more, or means something else by it, where it must not.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from faust.app.base import BootStrategy
from faust.exceptions import ConsumerNotStarted
from faust.tables import recovery
from faust.tables.manager import TableManager
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from delaystream.adapters.internals import faust as faust_internals
from delaystream.adapters.membership import faust_transport
from tests.unit import scripted_faust
from tests.unit.contracts import Contract, Contracts, Doctor, is_broken, renamed
from tests.unit.scripted_faust import app, running

contract = Contracts()


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(TRANSPORTS.aliases, scripted_faust.SCHEME, scripted_faust.TRANSPORT)
    monkeypatch.chdir(tmp_path)


@contract
async def a_transport_is_found_by_its_scheme() -> None:
    faust_internals.register_transport("elsewhere", f"{faust_transport.__name__}:Transport")
    assert TRANSPORTS.by_url("elsewhere://") is faust_transport.Transport
    assert type(app().transport) is scripted_faust.Transport


@contract
async def consumer_and_thread_are_made_of_our_classes() -> None:
    made = app()
    consumer = made.consumer
    assert type(consumer) is scripted_faust.Consumer
    assert consumer.thread is consumer._thread
    assert consumer.noted() == ["new_thread", "prepare"]
    assert isinstance(consumer.thread._rebalance_listener, faust_internals.RebalanceListener)
    assert consumer.thread.client is None
    with pytest.raises(ConsumerNotStarted):
        _ = consumer.thread.started_client


@contract
async def the_consumer_is_made_in_its_thread() -> None:
    async with running() as (_, consumer):
        [ident] = [ident for what, ident in consumer.notes if what == "new_client"]
        assert ident != threading.get_ident()
        assert consumer.thread.group is not None
        client = consumer.thread.group.consumer
        assert consumer.thread.client is client
        assert consumer.thread.started_client is client
        assert await consumer.thread.call_thread(_ident) == ident


async def _ident() -> int:
    return threading.get_ident()


@contract
async def the_thread_hears_of_a_rebalance_first() -> None:
    async with running() as (_, consumer):
        names = consumer.noted()
        assert names[names.index("new_client") + 1] == "on_rebalance"
        assert names.index("on_rebalance") < names.index("revoked")
        idents = dict(consumer.notes)
        assert idents["on_rebalance"] == idents["new_client"]
        assert idents["revoked"] == threading.get_ident()


@contract
async def an_assignment_comes_with_its_generation() -> None:
    async with running() as (made, consumer):
        names = consumer.noted()
        assert names.index("assigned in the thread, 1") < names.index("assigned [0, 1], 1")
        assert made.consumer_generation_id == 1


@contract
async def messages_are_moved_by_our_loop_until_the_app_stops() -> None:
    async with running() as (_, consumer):
        assert consumer.handing_out == 1
    assert consumer.handing_out == 0


@contract
async def no_position_is_taken_from_the_group() -> None:
    async with running() as (_, consumer):
        await consumer.perform_seek()
        assert "seek_to_committed" not in consumer.noted()
    assert "perform_seek" in inspect.getsource(recovery)


@contract
async def the_client_is_left_to_its_thread() -> None:
    async with running() as (made, consumer):
        made._on_rebalance_when_stopped()
        await asyncio.sleep(0)
        assert consumer.thread.started_client._closed is False


@contract
async def a_fetch_that_is_cancelled_as_the_client_stops_ends_nothing_else() -> None:
    async def fetch_again_later() -> None:
        fetches = consumer.thread.started_client._fetcher._pending_tasks
        fetches.add(asyncio.ensure_future(asyncio.sleep(60)))

    async with running() as (_, consumer):
        await consumer.thread.call_thread(fetch_again_later)
    assert "stopped" in consumer.noted()


@contract
async def nobody_else_watches() -> None:
    async with running() as (_, consumer):
        looked: list[object] = []

        def look(*at: object, **named: object) -> bool:
            looked.append((at, named))
            return True

        consumer.thread._verify_aiokafka_event_path = look  # type: ignore[method-assign]
        await consumer.verify_all_partitions_active()
        assert consumer.assignment()
        assert looked == []


@contract
async def tables_begin_at_once() -> None:
    made = app()
    assert type(made.tables) is faust_internals.Tables
    assert "_update_channels" in vars(TableManager)
    theirs = ast.parse(textwrap.dedent(inspect.getsource(TableManager.on_start)))
    expected = ast.parse(
        '''
async def on_start(self) -> None:
    """Call when table manager is starting."""
    await self.sleep(1.0)
    if not self.should_stop:
        await self._update_channels()
        await self.recovery.start()
'''
    )
    assert ast.dump(theirs) == ast.dump(expected)
    async with running() as (made, _):
        assert made.slept == []
        assert made.tables._tables_registered.is_set()
        assert made.tables.recovery.started


@contract
async def only_what_consuming_needs_is_started() -> None:
    made = app()
    made.conf.web_enabled = True
    assert isinstance(made.boot_strategy, faust_internals.Boot)
    services = list(made.on_init_dependencies())
    assert made.consumer in services
    assert made.tables in services
    assert made.producer not in services
    assert list(made.sensors), "there is something to leave out"
    assert not [each for each in services if each in list(made.sensors)]
    assert "Web" not in {type(each).__name__ for each in services}
    assert not made.in_transaction
    assert not made.consumer.in_transaction


@contract
async def nothing_is_written() -> None:
    flushed: list[object] = []

    async def flush() -> None:
        flushed.append(flush)

    async with running() as (made, _):
        made.producer.flush = flush  # type: ignore[method-assign]
    assert flushed == []
    assert list(Path.cwd().iterdir()) == []
    assert made.conf.datadir.absolute().is_relative_to(Path.cwd())


# -- and they hold ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("holds", contract, ids=lambda holds: holds.__name__)
def test_the_contract_holds_with_the_installed_library(holds: Contract) -> None:
    holds()


# -- and are broken by a library that is another ---------------------------------------------------------

#: What stands in the place of something of Faust's, and a contract that must notice when it is not called.
REPLACED: dict[type, dict[str, Contract]] = {
    faust_internals.RebalanceListener: {"on_partitions_revoked": the_thread_hears_of_a_rebalance_first},
    faust_internals.ConsumerThread: {
        "__post_init__": consumer_and_thread_are_made_of_our_classes,
        "_create_worker_consumer": the_consumer_is_made_in_its_thread,
        "close": the_client_is_left_to_its_thread,
        "on_thread_stop": a_fetch_that_is_cancelled_as_the_client_stops_ends_nothing_else,
        "verify_event_path": nobody_else_watches,
    },
    faust_internals.Consumer: {
        "RebalanceListener": consumer_and_thread_are_made_of_our_classes,
        "_new_consumer_thread": consumer_and_thread_are_made_of_our_classes,
        "_drain_messages": messages_are_moved_by_our_loop_until_the_app_stops,
        "perform_seek": no_position_is_taken_from_the_group,
    },
    faust_internals.Tables: {"on_start": tables_begin_at_once},
    faust_internals.Boot: {
        "enable_kafka_producer": only_what_consuming_needs_is_started,
        "enable_web": only_what_consuming_needs_is_started,
        "enable_sensors": only_what_consuming_needs_is_started,
    },
    faust_internals.App: {
        "BootStrategy": only_what_consuming_needs_is_started,
        "_create_directories": nothing_is_written,
        "_producer_flush": nothing_is_written,
    },
}
#: What is for the log alone, and what Python and Faust give to every class.
QUIET = {"mundane_level", "logger", "_abc_impl"}


async def _longer_start(self: TableManager) -> None:
    await self.sleep(1.0)
    await self._update_channels()
    await self.recovery.start()
    self.on_actives_ready()


async def _told_late(self: Any, assigned: Any) -> None:
    await self._thread.on_partitions_assigned({TP(tp.topic, tp.partition) for tp in assigned})


class _Deaf(dict[str, str]):
    """Takes nothing more."""

    def __setitem__(self, *_: Any) -> None:
        pass


def _deaf() -> _Deaf:
    return _Deaf({scheme: path for scheme, path in TRANSPORTS.aliases.items() if scheme != "elsewhere"})


#: What is called or means something else, and the contract that must notice.
CHANGED: dict[str, tuple[Contract, Doctor]] = {
    "schemes are looked up elsewhere": (
        a_transport_is_found_by_its_scheme,
        lambda patch: patch.setattr(TRANSPORTS, "aliases", _deaf()),
    ),
    "an assignment comes without its generation": (
        an_assignment_comes_with_its_generation,
        lambda patch: patch.setattr(driver.ConsumerRebalanceListener, "on_partitions_assigned", _told_late),
    ),
    "tables do more when they start": (
        tables_begin_at_once,
        lambda patch: patch.setattr(TableManager, "on_start", _longer_start),
    ),
    "channels are brought up to date elsewhere": (
        tables_begin_at_once,
        lambda patch: patch.delattr(TableManager, "_update_channels"),
    ),
    "the strategy's parts have other switches": (
        only_what_consuming_needs_is_started,
        lambda patch: patch.setattr(BootStrategy, "_should_enable_kafka_producer", lambda _: True),
    ),
    "the listener's thread has another name": (
        the_thread_hears_of_a_rebalance_first,
        lambda patch: renamed(patch, driver.ConsumerRebalanceListener, "_thread"),
    ),
    "the thread's consumer has another name": (
        the_consumer_is_made_in_its_thread,
        lambda patch: renamed(patch, driver.AIOKafkaConsumerThread, "_consumer"),
    ),
    "the thread's started consumer is told by another method": (
        the_consumer_is_made_in_its_thread,
        lambda patch: renamed(patch, driver.AIOKafkaConsumerThread, "_ensure_consumer"),
    ),
}


#: Where the doctored library ends the thread.
ends_threads = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@ends_threads
@pytest.mark.parametrize(
    ("cls", "name"),
    [(cls, name) for cls, names in REPLACED.items() for name in names],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_what_is_not_called_any_more_is_missed(cls: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        # Faust's own consumer finds nobody.
        patch.setattr(driver, "server_list", lambda *_: ["127.0.0.1:9"])
        patch.delattr(cls, name)
        assert is_broken(REPLACED[cls][name])


@ends_threads
@pytest.mark.parametrize("what", CHANGED)
def test_what_means_something_else_is_noticed(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    holds, doctor = CHANGED[what]
    with monkeypatch.context() as patch:
        doctor(patch)
        assert is_broken(holds)


def test_everything_that_is_replaced_has_its_contract() -> None:
    """One that is replaced from now on needs one, too."""
    for cls in vars(faust_internals).values():
        if not inspect.isclass(cls) or cls.__module__ != faust_internals.__name__:
            continue
        own = {name for name in vars(cls) if name in {"__post_init__", "__init__"} or "__" not in name}
        theirs = {name for base in cls.__mro__[1:] for name in vars(base)}
        assert (own & theirs) - QUIET == set(REPLACED[cls]), cls


def test_every_contract_is_broken_by_something() -> None:
    """One that nothing breaks says nothing."""
    broken = {holds for names in REPLACED.values() for holds in names.values()}
    broken |= {holds for holds, _ in CHANGED.values()}
    assert [holds.__name__ for holds in contract if holds not in broken] == []
