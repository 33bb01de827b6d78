"""The console's process: made from the settings, run until a signal or a failure."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any, Final, NamedTuple

import structlog
import uvicorn

from delaystream import __version__
from delaystream.adapters.clock import SystemClock
from delaystream.adapters.kafka.changelog import AiokafkaChangelog
from delaystream.adapters.operate.http import bound
from delaystream.adapters.security.client_config import ClientConfig
from delaystream.adapters.storage.data_directory import DataDirectory
from delaystream.adapters.storage.rocksdb_store import RocksDbStores
from delaystream.app import parts, process
from delaystream.app.preflight import Followed, followed
from delaystream.config import ConfigurationError, Settings
from delaystream.console.access.caller import Caller, Exceptions
from delaystream.console.access.claims import Claims, parse_grant
from delaystream.console.access.connections import server_config
from delaystream.console.access.entrance import Entrance
from delaystream.console.access.hosts import Hosts
from delaystream.console.access.limits import Bounds
from delaystream.console.access.proxies import Proxies
from delaystream.console.access.sessions import Cookies
from delaystream.console.access.token_file import TokenFile
from delaystream.console.access.tokens import TokensError
from delaystream.console.api.application import application
from delaystream.console.audit.log import AuditLog
from delaystream.console.audit.log import Bounds as AuditBounds
from delaystream.console.history.database import Database, Retention
from delaystream.console.history.follower import HistoryFollower
from delaystream.console.history.queries import History
from delaystream.console.letters.acts import Acts
from delaystream.console.letters.latest import DeadLetters
from delaystream.console.letters.originals import Originals
from delaystream.console.letters.redriving import Redriving
from delaystream.console.letters.runs import Runs
from delaystream.console.loopback import is_loopback, listening_address, url_of
from delaystream.console.operations.carrying import Means
from delaystream.console.operations.ledger import OperationLedger
from delaystream.console.operations.service import OperationBounds, Operations
from delaystream.console.pages.appearance import Appearance
from delaystream.console.replica.follower import Follower, FollowerSettings
from delaystream.console.service import Console
from delaystream.console.signing.provider import Provider, Registration, url_problem
from delaystream.console.signing.service import Identities, Signing
from delaystream.console.signing.sessions import Lifetimes, StoredSessions
from delaystream.console.writing.ledger import Ledger
from delaystream.console.writing.sending import Sender, connected
from delaystream.console.writing.service import Writing
from delaystream.engine.failures import LogUnavailable, Misconfigured
from delaystream.engine.ports import LogBounds
from delaystream.exit_codes import ExitCode

logger = structlog.get_logger(__name__)

_LOOK_AGAIN_S: Final = 2.0
#: How often the topics are looked at, which may have gained partitions.
_LOOK_FOR_CHANGES_S: Final = 15.0
_DAY_MS: Final = 86_400_000
#: A page of a list makes thousands of objects. With the collector's own thresholds one page in ten waited for
#: it to go through all that was ever imported: a tenth of a second.
_GC_THRESHOLDS: Final = (50_000, 10, 10)
#: Seconds for which a thread that writes to the history may hold up the event loop, each time that the loop
#: has asked the operating system for something: an answer has a dozen of these.
_SWITCH_S: Final = 0.0005


class _Server(uvicorn.Server):
    """Leaves signals to the process, which stops more than this."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def run_console(settings: Settings, appearance: Appearance | None = None) -> int:
    """Run until SIGTERM or SIGINT (then 0), or until it cannot go on; returns the process's exit code.

    Raises ConfigurationError when others than this machine could reach it without saying who they are, and
    when the file of tokens is not as it should be.
    """
    entrance = entrance_of(settings)
    address = listening_address(settings.console_http_host, authenticates=entrance.asks)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_serve(settings, address, entrance, appearance or Appearance()))
        code = ExitCode.OK
    except Exception as failure:  # noqa: BLE001  # the crash boundary of the process
        code = process.explain(failure)
    loop.run_until_complete(process.cancel_rest())
    return code


async def _serve(settings: Settings, address: str, entrance: Entrance, appearance: Appearance) -> None:
    client = parts.client_config(settings)
    stop = process.signals()
    sys.setswitchinterval(_SWITCH_S)
    with ExitStack() as stack:
        directory = DataDirectory.acquire(settings.console_data_dir, settings.app_id)
        stack.callback(directory.release)
        listening = bound(address, settings.console_http_port, listens=True)
        stack.callback(listening.close)
        logger.info(
            "console starts", version=__version__, app_id=settings.app_id, data_dir=str(directory.path)
        )
        looking = asyncio.create_task(_look(settings, client))
        if not await process.first(looking, stop):
            return
        found: Followed | None = await looking
        assert found is not None
        host, port = listening.getsockname()[:2]
        logger.info(
            "console listens",
            url=url_of(host, port),
            partitions=found.partitions,
            authentication=entrance.authentication,
        )
        if not entrance.asks:
            logger.info(
                "the console does not authenticate its callers: whoever reaches its loopback "
                "address sees everything"
            )
        elif not is_loopback(host):
            logger.info("the console is reachable beyond this machine, and serves no TLS itself")
        if entrance.tokens is not None:
            renewing = asyncio.create_task(entrance.tokens.run(), name="tokens")
            stack.callback(renewing.cancel)
        while found is not None:
            around = _Round(settings, client, found, directory, entrance, appearance)
            found = await around.run(listening, stop)
    logger.info("console stopped")


class _Round(NamedTuple):
    """The topics as they are, followed and asked until they are other ones."""

    settings: Settings
    client: ClientConfig
    found: Followed
    directory: DataDirectory
    entrance: Entrance
    appearance: Appearance

    async def run(self, listening: socket.socket, stop: asyncio.Event) -> Followed | None:
        """What the topics have become meanwhile; None: it is to stop."""
        with ExitStack() as stack:
            console = _compose(self.settings, self.client, self.found, self.directory, stack, self.entrance)
            assert console.audit is not None
            console.signing = _signing(self.settings, console.audit, self.entrance, stack)
            bounds = self.entrance.limits.bounds
            app = application(console, self.entrance, self.appearance)
            server = _Server(server_config(app, bounds.url_bytes, bounds.header_bytes))
            process.settle(*_GC_THRESHOLDS)
            looking = _changed(self.settings, self.client, self.found)
            changing = asyncio.create_task(looking, name="look for partitions")
            await _until(console, server, listening, changing, stop)
            if changing.cancelled():
                return None
        changed = changing.result()
        logger.info("topics have changed: the console begins anew with them", partitions=changed.partitions)
        return changed


def entrance_of(settings: Settings) -> Entrance:
    """Who is let in, as the settings say. Raises ConfigurationError."""
    named = settings.console_tokens_file
    hidden = Exceptions(
        by_default=not settings.events_key,
        but=frozenset(
            topic for topic in settings.tenants if settings.requests(topic).events_key != settings.events_key
        ),
    )
    try:
        tokens = None if named is None else TokenFile(Path(named), hidden)
    except TokensError as error:
        raise ConfigurationError(
            [f"console_tokens_file is {named!r}: {one}" for one in error.problems]
        ) from None
    try:
        proxies = Proxies(settings.console_trusted_proxies)
    except ValueError as error:
        raise ConfigurationError([f"console_trusted_proxies: {error}."]) from None
    loopback = is_loopback(settings.console_http_host)
    allowed = settings.console_allowed_hosts
    secret = settings.console_secret
    made = Entrance(
        SystemClock().now_ms,
        tokens=tokens,
        hosts=Hosts(allowed, loopback=loopback) if loopback or allowed else None,
        bounds=Bounds(
            requests_per_second=settings.console_requests_per_second,
            failures_per_minute=settings.console_failures_per_minute,
            body_bytes=settings.console_max_body_bytes,
            url_bytes=settings.console_max_url_bytes,
            header_bytes=settings.console_max_header_bytes,
            streams=settings.console_streams_per_caller,
        ),
        secret=None if secret is None else secret.encode(),
    )
    made.claims = claims_of(settings, hidden)
    made.proxies = proxies
    made.public_url = settings.console_public_url
    by_http = settings.console_public_url is not None and settings.console_public_url.startswith("http://")
    made.cookies = Cookies(secure=not (loopback and (by_http or settings.console_public_url is None)))
    return made


def claims_of(settings: Settings, hidden_keys: Exceptions) -> Claims | None:
    """How a provider's claims become callers; None: there is no provider. Raises ConfigurationError."""
    issuer = settings.console_oidc_issuer
    if issuer is None:
        return None
    problems = []
    if (problem := url_problem(issuer)) is not None:
        problems.append(f"console_oidc_issuer is {issuer!r}: it {problem}.")
    if settings.console_oidc_client_id is None:
        problems.append("console_oidc_issuer needs console_oidc_client_id.")
    if "openid" not in settings.console_oidc_scopes:
        problems.append("console_oidc_scopes lacks openid, without which the provider tells no identity.")
    if not is_loopback(settings.console_http_host) and settings.console_public_url is None:
        problems.append(
            "console_oidc_issuer needs console_public_url beyond loopback: the provider sends browsers there."
        )
    grants = []
    for one in settings.console_oidc_roles:
        try:
            grants.append(parse_grant(one))
        except ValueError as error:
            problems.append(f"console_oidc_roles: {error}.")
    if not settings.console_oidc_roles:
        problems.append("console_oidc_roles grants nothing: nobody of console_oidc_issuer would be let in.")
    if problems:
        raise ConfigurationError(problems)
    return Claims(
        issuer=issuer,
        grants=tuple(grants),
        payload=frozenset(settings.console_oidc_payload),
        roles_claim=settings.console_oidc_roles_claim,
        name_claim=settings.console_oidc_name_claim,
        hidden_keys=hidden_keys,
    )


def _signing(settings: Settings, audit: AuditLog, entrance: Entrance, stack: ExitStack) -> Signing | None:
    """How people sign in; None: nobody is asked who they are."""
    if not entrance.asks:
        return None
    lifetimes = Lifetimes(
        settings.console_session_idle_minutes * 60_000, settings.console_session_hours * 3_600_000
    )
    sessions = StoredSessions(audit.database, SystemClock().now_ms, lifetimes)
    entrance.sessions = sessions
    identities = None
    if entrance.claims is not None:
        assert settings.console_oidc_client_id is not None
        registration = Registration(
            issuer=entrance.claims.issuer,
            client_id=settings.console_oidc_client_id,
            client_secret=settings.console_oidc_client_secret,
            audience=settings.console_oidc_audience,
            scopes=settings.console_oidc_scopes,
        )
        identities = Identities(Provider(registration, time.time), entrance.claims)
        stack.callback(identities.close)
        entrance.services = identities if registration.audience is not None else None
    return Signing(sessions, audit, entrance, identities)


def _compose(
    settings: Settings,
    client: ClientConfig,
    found: Followed,
    directory: DataDirectory,
    stack: ExitStack,
    entrance: Entrance,
) -> Console:
    clock, stores = SystemClock(), RocksDbStores(directory)
    database = Database.open(settings.console_database or f"sqlite:///{directory.path / 'history.db'}")
    stack.callback(database.close)

    def opening(topic: str) -> Callable[[int], Awaitable[AiokafkaChangelog]]:
        async def opened(partition: int) -> AiokafkaChangelog:
            bounds = parts.changelog_settings(settings)
            return await AiokafkaChangelog.open(client.aiokafka(), topic, partition, bounds)

        return opened

    following = [
        Follower(
            partition,
            opening(settings.changelog_topic),
            stores,
            clock,
            FollowerSettings(found.delete_retention_ms),
        )
        for partition in range(found.partitions)
    ]
    retention = Retention(
        settings.console_history_days * _DAY_MS,
        settings.console_history_events,
        minutes_ms=90 * _DAY_MS,
        hours_ms=396 * _DAY_MS,
    )
    history = HistoryFollower(
        found.events_partitions, opening(settings.events_topic), database, clock, retention
    )

    async def bounds(topic: str, partition: int) -> LogBounds:
        log = await opening(topic)(partition)
        try:
            return await log.bounds()
        finally:
            await log.close()

    letters = DeadLetters(found.dead_letters_partitions, opening(settings.dead_letters_topic), clock.now_ms)
    console = Console(following, history, History(database), letters, clock, bounds)
    console.app_id = settings.app_id
    sender = Sender(settings, partial(connected, client), clock.now_ms)
    kept = AuditBounds(kept_ms=settings.console_audit_days * _DAY_MS)
    console.audit = AuditLog(database, clock.now_ms, kept)
    ledger = Ledger(database, console.audit)
    console.writing = Writing(sender, console, ledger, clock, allowed=settings.console_writes)
    originals = Originals(found.dead_letters_partitions, opening(settings.dead_letters_topic))
    redriving = Redriving(
        originals, letters, Acts(database, console.audit), console.writing, console.row_of, clock
    )
    runner = f"{socket.gethostname()}-{token_hex(8)}"
    operation_ledger = OperationLedger(database, console.audit)

    async def stands(caller: Caller) -> bool:
        # What began while nobody was asked does not go on when everybody is.
        return (caller.authenticated or not entrance.asks) and await entrance.stands(caller)

    console.runs = Runs(redriving, clock, stands)
    means = Means(console, console.writing, operation_ledger, clock, stands, runner)
    operation_bounds = OperationBounds(
        rate=settings.console_operation_rate,
        most_rate=settings.console_operation_max_rate,
        items=settings.console_operation_items,
    )
    console.operations = Operations(means, operation_bounds, settings.engine(found.partitions))
    return console


async def _until(
    console: Console,
    server: uvicorn.Server,
    listening: socket.socket,
    changing: asyncio.Task[Followed],
    stop: asyncio.Event,
) -> None:
    """Have it follow and answer until it is to stop, or to begin anew; then `changing` is not cancelled."""
    following = asyncio.create_task(console.run(), name="follow")
    # A server closes what it listens on; the address stays this process's.
    serving = asyncio.create_task(server.serve(sockets=[listening.dup()]), name="http")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    tasks: list[asyncio.Task[Any]] = [following, serving, stopping, changing]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        # A stream of events has no end of its own.
        console.tail.close()
        if console.runs is not None:
            await console.runs.close()
        if console.operations is not None:
            await console.operations.close()
        if console.writing is not None:
            # Who waits for an outcome is told that it is under way.
            await console.writing.close()
        server.should_exit = True
        for task in (stopping, following, changing):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _changed(settings: Settings, client: ClientConfig, known: Followed) -> Followed:
    """What is followed, once it is something else: a topic has more partitions, or another retention."""
    while True:
        await asyncio.sleep(_LOOK_FOR_CHANGES_S)
        try:
            found = await asyncio.to_thread(followed, settings, client)
        except (LogUnavailable, Misconfigured):
            # Those who follow say so.
            continue
        if found != known:
            return found


async def _look(settings: Settings, client: ClientConfig) -> Followed:
    """Wait for Kafka, and for the topics: whoever starts a console first need not be told to try again."""
    told = ""
    while True:
        try:
            return await asyncio.to_thread(followed, settings, client)
        except (LogUnavailable, Misconfigured) as problem:
            if told != str(problem):
                told = str(problem)
                logger.warning("waiting for Kafka", problem=told)
            await asyncio.sleep(_LOOK_AGAIN_S)
