"""Every knob of the gateway: default, unit, one sentence. The only reader of the environment.

A field `port` is set by the variable `SIMSA_PORT`. docs/settings.md is generated from here (`make docs`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.domain.records import Priority
from gateway.errors import StartRefused

_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
DNS_PORT = 53
SECRET_SETTINGS = frozenset({"admin_key", "key", "database_url", "redis_url", "otlp_headers"})
"""Settings whose values are never shown."""


@dataclass(frozen=True, slots=True)
class DatabaseLimits:
    """How many connections a database is asked for, how long it may take to answer, and whether others serve it too."""

    connections: int = 5
    connect_s: float = 5.0
    statement_s: float = 5.0
    """0 is no limit."""
    is_shared: bool = False
    """Whether several gateways serve it together; only PostgreSQL."""


_DATABASE = DatabaseLimits()


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SIMSA_", frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="Address to listen on; anything but loopback needs an admin key.")
    port: int = Field(8080, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    workers: int = Field(
        1, ge=1, le=64, description="Gateway processes that share the port; more than one needs PostgreSQL and Redis."
    )
    registry: Path = Field(Path("model_registry.yaml"), description="The model registry file.")
    replicas_file: Path | None = Field(
        None,
        description="A file that adds replicas to models of the registry, watched like it; see docs/discovery.md.",
    )
    dns_servers: str = Field(
        "",
        description="Name servers that are asked for replicas' names, as 10.0.0.10 or [fd00::a]:53, separated by "
        "commas; those of the system, with its search list, where not set.",
    )
    dns_refresh_s: float = Field(
        5.0,
        gt=0,
        description="Longest time in seconds before a name of replicas is asked for again; sooner where its records "
        "say that they last for less, but not below 1 s.",
    )
    data_dir: Path = Field(Path(".simsa"), description="Directory for the database, the spool and generated files.")
    database_url: str | None = Field(
        None,
        description="postgresql://user@host/name or sqlite:///file; a SQLite file in the data directory by default.",
    )
    database_connections: int = Field(
        _DATABASE.connections,
        gt=0,
        description="Connections to PostgreSQL at most, beside the one that holds its lock.",
    )
    database_connect_timeout_s: float = Field(
        _DATABASE.connect_s,
        gt=0,
        description="Seconds PostgreSQL has to take up a connection, or the pool to free one.",
    )
    database_statement_timeout_s: float = Field(
        _DATABASE.statement_s,
        gt=0,
        description="Seconds one statement may take on PostgreSQL, or wait for another program's lock on SQLite.",
    )
    redis_url: SecretStr | None = Field(
        None,
        description="redis://host:6379/0 or rediss://...: where several gateways on one PostgreSQL share their limits; "
        "without it one gateway serves a database.",
    )
    redis_prefix: str = Field(
        "simsa", pattern=r"^[a-z0-9_-]{1,32}$", description="What every key in Redis begins with."
    )
    redis_timeout_s: float = Field(
        0.5, gt=0, le=10, description="Seconds Redis may take to answer before a gateway goes on with its share alone."
    )
    redis_connections: int = Field(16, gt=0, description="Connections of one gateway to Redis at most.")
    admin_key: SecretStr | None = Field(
        None,
        description="Key that opens every route; without it only loopback is listened on and no key is asked.",
    )
    key: SecretStr | None = Field(
        None, description="A person's own key, with which commands call a gateway; the admin key where it is not set."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level that is logged.")
    key_refresh_s: float = Field(
        5.0,
        gt=0,
        le=60,
        description="Seconds after which keys that another process made or revoked count here too; our own do at once.",
    )
    max_body_bytes: int = Field(
        20 * 1024 * 1024, gt=0, description="Largest request body in bytes; a larger one gets 413."
    )
    client_head_timeout_s: float = Field(
        30.0, gt=0, description="Seconds a client has for a request's head; then it gets 408."
    )
    client_body_timeout_s: float = Field(
        120.0, gt=0, description="Seconds a client has for a request's body after its head; then it gets 408."
    )
    client_read_timeout_s: float = Field(
        120.0, gt=0, description="Seconds a client may leave an answer unread that waits for it; then it is cut off."
    )
    max_connections: int = Field(
        4096,
        gt=0,
        description="Clients' connections at a time, far above what engines can serve; further ones get 503.",
    )
    allow_remote_media: bool = Field(
        False,
        description="Let engines fetch the image, audio and video addresses that clients name; else only data: URLs.",
    )
    off_loop_body_bytes: int = Field(
        256 * 1024, gt=0, description="Bodies over this many bytes are parsed off the event loop."
    )
    max_answer_bytes: int = Field(
        64 * 1024 * 1024, gt=0, description="Largest whole answer in bytes taken from an engine."
    )
    remembered_responses: int = Field(
        10_000,
        gt=0,
        description="Replies of /v1/responses of each key whose engine is remembered, so that they can be continued.",
    )
    max_attempts: int = Field(
        3,
        ge=1,
        le=10,
        description="Replicas tried for one call before its first byte, the first one included.",
    )
    replica_max_in_flight: int = Field(
        256, gt=0, description="Most calls at a time on a replica whose registry entry names no max_in_flight."
    )
    interactive_share: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Share of a replica's places that calls of class interactive may fill; the rest is for reviewers.",
    )
    batch_share: float = Field(
        0.75, gt=0, le=1, description="Share of a replica's places that calls of class batch may fill."
    )
    load_test_share: float = Field(
        0.5, gt=0, le=1, description="Share of a replica's places that calls of class load_test may fill."
    )
    queue_max_waiting: int = Field(
        1000,
        gt=0,
        description="Most calls that wait for a model at a time, and most of those that only some of its replicas can "
        "answer; further ones get 503.",
    )
    queue_wait_s: float = Field(
        30.0, gt=0, description="Seconds a call may wait for a place on a replica; then it gets 503."
    )
    breaker_faults: int = Field(
        5, gt=0, description="Faults in a row after which a replica is left alone and then tried with one call."
    )
    breaker_rest_s: float = Field(
        5.0, gt=0, description="Seconds it is left alone; doubled, up to 60, each time that it fails again."
    )
    health_interval_s: float = Field(2.0, gt=0, description="Seconds between looks at each replica.")
    health_timeout_s: float = Field(2.0, gt=0, description="Seconds a replica has to answer a look.")
    probe_on_connect: bool = Field(
        True, description="Ask a vLLM engine for one token before it gets calls: some are healthy and die of the first."
    )
    registry_poll_s: float = Field(1.0, gt=0, description="Seconds between looks at the registry file.")
    shutdown_grace_s: float = Field(
        30.0, ge=0, description="Seconds that calls in flight may go on after SIGTERM before they are ended."
    )
    ping_interval_s: float = Field(
        0.0, ge=0, description="Seconds of silence after which a stream gets a comment line; 0 turns it off."
    )
    upstream_idle_connections: int = Field(256, ge=0, description="Idle connections kept open to each replica.")
    spool_fsync_s: float = Field(
        0.1, gt=0, description="Seconds between fsyncs of the spool: what a power cut may lose."
    )
    spool_segment_bytes: int = Field(
        16 * 1024 * 1024, gt=0, description="Size in bytes at which the spool starts a new segment."
    )
    recorder_queue: int = Field(
        100_000,
        gt=0,
        description="Records held in memory while the database is away; over it new calls are refused.",
    )
    recorder_batch: int = Field(500, gt=0, description="Records written to the database in one transaction.")
    recorder_flush_s: float = Field(0.25, gt=0, description="Longest time in seconds a record waits for its batch.")
    comparison_timeout_s: float = Field(600.0, gt=0, description="Seconds one comparison may take, all sides together.")
    public_url: str | None = Field(
        None,
        description="Address under which people reach the gateway, for links; the request's own where not set. Beside "
        "SIMSA_REVIEW_URL everything is served at its host name and at this machine's own alone.",
    )
    review_url: str | None = Field(
        None,
        description="Address under which reviewers reach their pages, e.g. https://review.example.org; there nothing "
        "else is served, so its host name must be its own. Where SIMSA_PUBLIC_URL is set too, everything is served "
        "only under that address's host name and this machine's (localhost, 127.0.0.0/8, ::1); under any other, or "
        "none, a request gets what reviewers get. Where it is not set, every other name reaches the API, and a warning "
        "at the start says so.",
    )
    review_link_days: float = Field(30.0, gt=0, le=366, description="Days for which a reviewer's link is valid.")
    batch_attempts: int = Field(
        5, gt=0, description="Times a batch asks a prompt that engines are too busy for, before it goes on without."
    )
    batch_retry_s: float = Field(
        5.0, gt=0, description="Seconds a batch waits before it asks again, or looks again; doubled each time, to 60."
    )
    settle_after_s: float = Field(
        120.0,
        ge=30,
        description="Seconds after the end of a minute of GPU time before it is settled; later records open it again.",
    )
    presence_interval_s: float = Field(
        5.0,
        gt=0,
        le=15,
        description="Seconds between notes of which replicas are up: how much paid time a killed gateway may lose.",
    )
    settled_minutes_keep_days: int = Field(
        90,
        ge=3,
        le=36_500,
        description="Days for which GPU time is kept by the minute and call, and a late record changes it; then by the "
        "day.",
    )
    engine_loads_keep_days: int = Field(
        90, ge=1, le=36_500, description="Days for which what looks at engines showed is kept by the minute."
    )
    gpu_price_tier: str | None = Field(
        None,
        description="Tier of the GPU prices that are used, e.g. reserved; the first price listed for a GPU by default.",
    )
    feasibility_gpu: str = Field(
        "h100-sxm", description="GPU that one-GPU verdicts are given for where nobody names one."
    )
    feasibility_context: int = Field(
        8192, gt=0, description="Tokens of context that one-GPU verdicts assume where nobody names a length."
    )

    observation_flush_s: float = Field(
        10.0, gt=0, description="Seconds between writings of what looks at engines showed: what a kill may lose."
    )
    energy_interval_s: float = Field(
        10.0,
        gt=0,
        le=60,
        description="Seconds between readings of the energy counters that replicas name; exporters renew theirs "
        "every 30 s by default.",
    )
    calibration: Path | None = Field(
        None,
        description="What started engines taught of the overhead, by GPU; calibration.json in the data directory by "
        "default.",
    )
    hub_urls: str = Field(
        "",
        description="Addresses, separated by commas, below which checkpoints' headers may be read, e.g. "
        "https://hub.example.org/models; redirects too lead nowhere else, and empty means that none may be read.",
    )
    hub_timeout_s: float = Field(
        60.0, gt=0, description="Seconds that reading one checkpoint's headers from a hub may take in all."
    )

    otlp_endpoint: str | None = Field(
        None,
        description="Address of a collector that takes traces by OTLP over HTTP, e.g. http://collector:4318; "
        "/v1/traces is put behind it. Without it nothing is traced.",
    )
    otlp_headers: SecretStr | None = Field(
        None,
        description="Headers for the collector, name=value separated by commas, values percent-encoded; e.g. "
        "authorization=Bearer%20token.",
    )
    trace_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the traces that begin here which are kept; of those that a client's traceparent "
        "continues, its sampled flag decides.",
    )
    service_name: str = Field("simsa", min_length=1, description="What traces call this gateway (service.name).")
    trace_queue: int = Field(
        4096,
        gt=0,
        description="Finished calls that wait for their spans to be sent; over it spans are dropped and counted.",
    )
    trace_flush_s: float = Field(
        2.0, gt=0, le=60, description="Longest time in seconds that a finished call's spans wait for their batch."
    )

    @field_validator("database_url")
    @classmethod
    def _is_supported(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("sqlite", "postgres")):
            raise ValueError("expected sqlite:///path/to/file.db or postgresql://user@host/name")
        return url

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: SecretStr | None) -> SecretStr | None:
        parts = None if url is None else urlsplit(url.get_secret_value())
        if parts is not None and (parts.scheme not in ("redis", "rediss", "unix") or not (parts.netloc or parts.path)):
            raise ValueError("expected redis://host:6379/0, rediss:// for TLS, or unix:///path/to/socket")
        return url

    @field_validator("batch_share", "load_test_share")
    @classmethod
    def _leaves_room_above(cls, share: float, info: ValidationInfo) -> float:
        above = "interactive_share" if info.field_name == "batch_share" else "batch_share"
        most = info.data.get(above, 1.0)
        if share > most:
            raise ValueError(f"a lower class may not fill more than a higher one: expected at most {above}, {most:g}")
        return share

    @field_validator("admin_key")
    @classmethod
    def _is_a_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not key.get_secret_value().strip():
            raise ValueError("it is empty: unset it, or set a key")
        if key is not None and not (key.get_secret_value().isascii() and key.get_secret_value().isprintable()):
            raise ValueError("it has characters that no HTTP header carries: use printable ASCII only")
        return key

    @field_validator("dns_servers")
    @classmethod
    def _are_name_servers(cls, servers: str) -> str:
        for text in _parts(servers):
            socket_address(text, DNS_PORT)
        return servers

    @field_validator("hub_urls")
    @classmethod
    def _are_addresses(cls, urls: str) -> str:
        for url in (part.strip() for part in urls.split(",") if part.strip()):
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
                raise ValueError("expected addresses such as https://hub.example.org/models, separated by commas")
        return urls

    @field_validator("otlp_endpoint")
    @classmethod
    def _is_a_collector(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
            raise ValueError("expected an address such as http://collector:4318, with keys in SIMSA_OTLP_HEADERS")
        if parts.path.rstrip("/").endswith("/v1/traces"):
            raise ValueError("leave /v1/traces away: it is put behind the address")
        return url

    @field_validator("otlp_headers")
    @classmethod
    def _are_headers(cls, headers: SecretStr | None) -> SecretStr | None:
        for name, value in _header_pairs(headers):
            if not _HEADER_NAME.fullmatch(name) or not value or not (value.isascii() and value.isprintable()):
                raise ValueError("expected name=value,name=value, with values percent-encoded")
        return headers

    @field_validator("review_url")
    @classmethod
    def _is_a_name_of_its_own(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("expected an address such as https://review.example.org")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("it has a path: reviewers' pages stand at /review of a host name of their own")
        host, public_url = host_name(url), info.data.get("public_url")
        if public_url is not None and not host_name(public_url):
            raise ValueError("SIMSA_PUBLIC_URL has no host name: expected one such as https://simsa.example.org")
        if host == host_name(public_url or ""):
            raise ValueError("it has the host name of SIMSA_PUBLIC_URL, where nothing else would be served any more")
        port = "" if parts.port is None else f":{parts.port}"
        return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"

    @property
    def reviewers_share_address(self) -> bool:
        """Whether reviewers come from beyond this machine to the address at which everything else is served."""
        return self.review_url is None and self.host not in LOOPBACK

    @property
    def name_servers(self) -> tuple[tuple[str, int], ...]:
        """Address and port of each; empty: the system's."""
        return tuple(socket_address(text, DNS_PORT) for text in _parts(self.dns_servers))

    @property
    def hubs(self) -> tuple[str, ...]:
        return tuple(part.strip().rstrip("/") for part in self.hub_urls.split(",") if part.strip())

    @property
    def otlp_header_pairs(self) -> tuple[tuple[str, str], ...]:
        return _header_pairs(self.otlp_headers)

    @property
    def place_shares(self) -> Mapping[Priority, float]:
        """How much of a replica each class may fill; reviewers all of it."""
        return {
            Priority.INTERACTIVE: self.interactive_share,
            Priority.BATCH: self.batch_share,
            Priority.LOAD_TEST: self.load_test_share,
        }

    @property
    def calibration_file(self) -> Path:
        return self.calibration or self.data_dir / "calibration.json"

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite+aiosqlite:///{(self.data_dir / 'simsa.db').resolve()}"

    @property
    def has_no_database(self) -> bool:
        """Whether the default file, which a gateway makes, is not there."""
        return self.database_url is None and not (self.data_dir / "simsa.db").exists()

    @property
    def database_limits(self) -> DatabaseLimits:
        return DatabaseLimits(
            self.database_connections,
            self.database_connect_timeout_s,
            self.database_statement_timeout_s,
            is_shared=self.is_one_of_several,
        )

    @property
    def is_one_of_several(self) -> bool:
        """Whether other gateways may serve the same database."""
        return self.redis_url is not None

    def refuse_lonely_redis(self) -> None:
        """Raise StartRefused where Redis is to be shared and the database cannot be."""
        if self.redis_url is not None and not (self.database_url or "").startswith("postgres"):
            raise StartRefused(
                "SIMSA_REDIS_URL is set, and several gateways share PostgreSQL only: set SIMSA_DATABASE_URL to "
                "postgresql://user@host/name, or unset SIMSA_REDIS_URL"
            )

    def refuse_open_door(self) -> None:
        """Raise StartRefused when strangers could reach a gateway that asks for no key."""
        if self.admin_key is None and self.host not in LOOPBACK:
            raise StartRefused(
                f"SIMSA_HOST={self.host} listens beyond this machine, but SIMSA_ADMIN_KEY is not set: "
                "set a key, or listen on 127.0.0.1"
            )


def _header_pairs(headers: SecretStr | None) -> tuple[tuple[str, str], ...]:
    """Names in lower case and values of `name=value,...`; one without a `=` has no value."""
    given = headers.get_secret_value() if headers is not None else ""
    pairs = (part.partition("=") for part in given.split(",") if part.strip())
    return tuple((name.strip().lower(), unquote(value.strip())) for name, _, value in pairs)


def socket_address(text: str, default_port: int) -> tuple[str, int]:
    """Address and port of `10.0.0.10`, `10.0.0.10:53`, `fd00::a` or `[fd00::a]:53`. Raises ValueError."""
    bracketed = re.fullmatch(r"\[(?P<host>[^]]+)](?::(?P<port>\d{1,5}))?", text)
    plain = re.fullmatch(r"(?P<host>[^:]+)(?::(?P<port>\d{1,5}))?", text)
    match = bracketed or plain
    host, port = (match["host"], int(match["port"] or default_port)) if match else (text, default_port)
    try:
        address = ip_address(host)
    except ValueError:
        raise ValueError(f"expected an address such as 10.0.0.10 or [fd00::a]:53, got {text!r}") from None
    if not 0 < port <= 65535:
        raise ValueError(f"expected a port from 1 to 65535, got {text!r}")
    return str(address), port


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def host_name(url: str) -> str:
    """As browsers send it: in lower case, without a final dot, and in ASCII."""
    return (urlsplit(url).hostname or "").rstrip(".").encode("idna").decode("ascii")


def secret_from_environment(name: str) -> str | None:
    """The value of an environment variable that the registry names (an upstream's key), None when unset or empty."""
    return os.environ.get(name) or None


def unknown_settings() -> list[tuple[str, str | None]]:
    """Variables of the environment that look like settings and are none, each with the nearest setting's name."""
    known = [f"SIMSA_{field.upper()}" for field in Settings.model_fields]
    given = {name.upper(): name for name in os.environ if name.upper().startswith("SIMSA_")}
    unknown = [name for name in sorted(given) if name not in known and not name.startswith("SIMSA_TEST_")]
    return [(given[name], next(iter(get_close_matches(name, known, n=1)), None)) for name in unknown]


def child_environment(**changes: str) -> Mapping[str, str]:
    """The environment for a process that we start: ours, with `changes`."""
    return {**os.environ, **changes}
