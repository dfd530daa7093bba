"""Every knob of the gateway: default, unit, one sentence. The only reader of the environment.

A field `port` is set by the variable `SIMSA_PORT`. docs/settings.md is generated from here (`make docs`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.errors import StartRefused

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
SECRET_SETTINGS = frozenset({"admin_key", "database_url"})
"""Settings whose values are never shown."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SIMSA_", frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="Address to listen on; anything but loopback needs an admin key.")
    port: int = Field(8080, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    registry: Path = Field(Path("model_registry.yaml"), description="The model registry file.")
    data_dir: Path = Field(Path(".simsa"), description="Directory for the database, the spool and generated files.")
    database_url: str | None = Field(
        None, description="SQLAlchemy URL of the database; a SQLite file in the data directory by default."
    )
    admin_key: SecretStr | None = Field(
        None,
        description="Key that opens every route; without it only loopback is listened on and no key is asked.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level that is logged.")
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
    max_attempts: int = Field(
        3,
        ge=1,
        le=10,
        description="Replicas tried for one call before its first byte, the first one included.",
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
    feasibility_gpu: str = Field(
        "h100-sxm", description="GPU that one-GPU verdicts are given for where nobody names one."
    )
    feasibility_context: int = Field(
        8192, gt=0, description="Tokens of context that one-GPU verdicts assume where nobody names a length."
    )

    @field_validator("database_url")
    @classmethod
    def _is_supported(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith("sqlite"):
            raise ValueError("expected a sqlite+aiosqlite:/// URL; other databases are not supported yet")
        return url

    @field_validator("admin_key")
    @classmethod
    def _is_a_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not key.get_secret_value().strip():
            raise ValueError("it is empty: unset it, or set a key")
        if key is not None and not (key.get_secret_value().isascii() and key.get_secret_value().isprintable()):
            raise ValueError("it has characters that no HTTP header carries: use printable ASCII only")
        return key

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite+aiosqlite:///{(self.data_dir / 'simsa.db').resolve()}"

    def refuse_open_door(self) -> None:
        """Raise StartRefused when strangers could reach a gateway that asks for no key."""
        if self.admin_key is None and self.host not in LOOPBACK:
            raise StartRefused(
                f"SIMSA_HOST={self.host} listens beyond this machine, but SIMSA_ADMIN_KEY is not set: "
                "set a key, or listen on 127.0.0.1"
            )


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
