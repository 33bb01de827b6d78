"""What serves people: where it listens, and what it keeps."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from delaystream.config.values import KIB, MIB, NameList, OptionalSecret, OptionalText, OptionalToken, Section


class ConsoleSettings(Section):
    """The console, and how the command line finds it."""

    console_http_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Where the console listens. Beyond loopback it needs console_tokens_file.",
    )
    console_http_port: int = Field(
        8643, ge=0, le=65_535, description="Port of the console. 0: a free one, logged."
    )
    console_data_dir: Path = Field(
        Path(".delaystream/console"),
        description="The console's copy of what is pending: <console-data-dir>/<app-id>/<partition>. May be "
        "lost: it is rebuilt from the changelog.",
    )
    console_database: OptionalText = Field(
        None,
        repr=False,
        description="SQLAlchemy URL of the console's history: postgresql+psycopg://… for several consoles "
        "that share one. None: a file of SQLite in the console's data directory.",
    )
    console_history_days: int = Field(
        90, ge=1, le=36_500, description="How long single events are kept in the history."
    )
    console_history_events: int = Field(
        50_000_000, ge=1_000, le=10**12, description="Most single events that the history keeps."
    )
    console_audit_days: int = Field(
        400, ge=1, le=36_500, description="How long the console's audit log is kept."
    )
    console_writes: bool = Field(
        True,
        description="Whether the console sends requests and commands to Kafka for callers. False: it only "
        "reads.",
    )
    console_reply_to: OptionalText = Field(
        None,
        description="Topic of the receipts that the console waits for; one that destinations_allow permits. "
        "None: receipts_topic.",
    )
    console_operation_rate: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Commands a second of an operation on many, unless its caller gives a rate.",
    )
    console_operation_max_rate: int = Field(
        1_000, ge=1, le=10_000, description="Most commands a second of an operation on many."
    )
    console_operation_items: int = Field(
        100_000, ge=1, le=1_000_000, description="Most schedules of one operation on many."
    )
    console_environment: OptionalText = Field(
        None,
        max_length=40,
        description="Name of the environment, such as production: the console's pages show it in its colour.",
    )
    console_environment_color: Literal["grey", "blue", "green", "amber", "red", "violet"] = Field(
        "grey", description="Colour of that name."
    )
    console_docs_url: OptionalText = Field(
        None,
        pattern=r"^https?://[^\s\"'<>]+$",
        description="Where these docs are published: the console's pages link to runbooks there. None: they "
        "name the files.",
    )
    console_tokens_file: OptionalText = Field(
        None,
        description="File of the tokens that the console accepts, with the rights of each: `delaystream "
        "console "
        "token` prints its entries. It is read again when it changes. None: the console does not "
        "authenticate its callers, and listens on loopback alone.",
    )
    console_public_url: OptionalText = Field(
        None,
        pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?$|^https?://\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?/?$",
        description="Where browsers reach the console, such as https://delays.example.com: a provider of "
        "identities sends them back there. None: the address that the browser uses. On loopback cookies "
        "need no TLS, with http:// or None; otherwise they do.",
    )
    console_session_idle_minutes: int = Field(
        60, ge=1, le=10_080, description="A session ends after this time without a request."
    )
    console_session_hours: int = Field(
        12, ge=1, le=720, description="A session ends after this time in any case."
    )
    console_oidc_issuer: OptionalText = Field(
        None,
        description="The issuer name of a provider of identities (OpenID Connect), such as "
        "https://login.example.com/realms/main. None: people sign in with tokens of the file alone.",
    )
    console_oidc_client_id: OptionalText = Field(
        None, description="The console's client id at that provider. An issuer needs it."
    )
    console_oidc_client_secret: OptionalToken = Field(
        None,
        repr=False,
        description="That client's secret. None: a public client, which PKCE alone protects.",
    )
    console_oidc_scopes: NameList = Field(
        ("openid", "profile", "email"), description="Scopes to ask for, comma-separated."
    )
    console_oidc_audience: OptionalText = Field(
        None,
        description="The audience of the provider's tokens that services send as bearer tokens (JSON Web "
        "Tokens). None: such tokens are refused.",
    )
    console_oidc_name_claim: str = Field(
        "preferred_username",
        min_length=1,
        description="The claim with a caller's name, which is the actor of their changes. People must not "
        "be able to choose it.",
    )
    console_oidc_roles_claim: str = Field(
        "groups",
        min_length=1,
        description="The claim with somebody's roles or groups; a dot leads into an object, such as "
        "realm_access.roles.",
    )
    console_oidc_roles: NameList = Field(
        (),
        description="Roles that values of that claim grant, comma-separated, each ROLE:GLOB=VALUE with a "
        "glob of "
        "request topics: admin:*=platform,operator:orders-*=support. A caller without a role is refused.",
    )
    console_oidc_payload: NameList = Field(
        (), description="Values of that claim whose owners see values and headers, comma-separated."
    )
    console_allowed_hosts: NameList = Field(
        (),
        description="Names that a request's `Host` may have, comma-separated, such as those of a proxy. On "
        "loopback its own names are allowed, too; beyond loopback an empty list allows any.",
    )
    console_trusted_proxies: NameList = Field(
        (),
        description="Addresses and networks of the proxies in front of the console, comma-separated, such as "
        "10.0.0.0/8. Their `X-Forwarded-For` is believed: the audit log has the caller's address then, and "
        "failures are counted by it. None: every request is the peer's.",
    )
    console_secret: OptionalSecret = Field(
        None,
        repr=False,
        description="Key that seals cursors; the same for all consoles behind one address. None: a random "
        "key, and cursors end with the process.",
    )
    console_requests_per_second: int = Field(
        500,
        ge=1,
        le=1_000_000,
        description="Most requests a second of one caller; a burst may have twice as many.",
    )
    console_failures_per_minute: int = Field(
        30,
        ge=1,
        le=1_000_000,
        description="Most requests a minute without valid credentials from one address that get 401; "
        "further ones get 429.",
    )
    console_streams_per_caller: int = Field(
        100, ge=1, le=200, description="Most streams of events that one caller may have open."
    )
    console_max_body_bytes: int = Field(
        2 * MIB, ge=KIB, le=256 * MIB, description="Largest body of a request to the console."
    )
    console_max_url_bytes: int = Field(
        16 * KIB, ge=KIB, le=64 * KIB, description="Longest path and query of a request to the console."
    )
    console_max_header_bytes: int = Field(
        16 * KIB, ge=KIB, le=64 * KIB, description="Largest headers of a request to the console."
    )
    console_token: OptionalToken = Field(
        None,
        repr=False,
        description="The token that the command line sends to the console.",
    )
    console_url: OptionalText = Field(
        None,
        description="Where the command line finds the console. None: "
        "http://<console-http-host>:<console-http-port>.",
    )
