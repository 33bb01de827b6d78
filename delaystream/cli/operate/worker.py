"""`delaystream worker`: accept requests and deliver them on time."""

from typing import Annotated

import typer

from delaystream.cli import options
from delaystream.cli.groups import expanded


@expanded
def worker(
    *,
    service: options.Service,
    request_topics: Annotated[
        str | None, typer.Option(help="Topics to read requests from.", metavar="TOPIC,...")
    ] = None,
    destinations_allow: Annotated[
        str | None,
        typer.Option(help="Topics that may be delivered to: names and globs. Required.", metavar="TOPIC,..."),
    ] = None,
    instance_id: Annotated[
        str | None, typer.Option(help="Static membership: group.instance.id.", metavar="NAME")
    ] = None,
    session_timeout_ms: Annotated[
        int | None, typer.Option(help="How long a silent worker keeps its partitions.", metavar="MS")
    ] = None,
) -> None:
    """Run a worker: accept requests and deliver them on time.

    Start as many as you like with the same app id: they share the partitions of the request topics. SIGTERM
    and Ctrl-C end it cleanly within seconds. Topics are never created: see `delaystream topics apply`. It
    serves /metrics and /health over HTTP.
    """
    loaded = service.load(
        flags={
            "request_topics": request_topics,
            "destinations_allow": destinations_allow,
            "instance_id": instance_id,
            "session_timeout_ms": session_timeout_ms,
        }
    )
    # The quick checks come before the slow imports. A wrong setting shows at once, and the imports may fail
    # with another version of a library.
    from delaystream.adapters.internals.versions import require_tested

    require_tested(allow_others=loaded.settings.allow_untested_clients)

    from delaystream.adapters.security.client_config import ClientConfig

    ClientConfig.parse(loaded.settings.kafka)
    loaded.settings.require_for_worker()

    from delaystream.app import run_worker
    from delaystream.logging import configure_logging

    configure_logging(loaded.settings.log_format, loaded.settings.log_level)
    raise typer.Exit(int(run_worker(loaded.settings)))
