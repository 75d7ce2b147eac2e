"""Settings: one frozen object, read from `HOLDFAST_*` at the start and passed in."""

import os
from enum import StrEnum
from hashlib import blake2b
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.errors import ConfigurationError
from app.rates import Rate
from app.setting_names import PREFIX, unknown_settings


class JwtAlgorithm(StrEnum):
    HS256 = "HS256"
    RS256 = "RS256"
    ES256 = "ES256"
    EDDSA = "EdDSA"


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


def _parse_rate(value: Any) -> Any:
    if isinstance(value, str):
        return Rate.parse(value) if value.strip() else None
    return value


_RateLimit = Annotated[Rate | None, NoDecode, BeforeValidator(_parse_rate)]


class Settings(BaseSettings):
    """Everything that can be set. A field `x` is read from `HOLDFAST_X`; README.md has the table."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0", description="Redis 7.0 or Valkey 7.2 and newer", repr=False
    )
    database_url: SecretStr = Field(
        SecretStr("postgresql://postgres@127.0.0.1:5432/holdfast"), description="Postgres 14 and newer"
    )
    namespace: str = Field(
        "holdfast", pattern=r"^[A-Za-z0-9._-]{1,32}$", description="prefix of every Redis key"
    )
    partitions: int = Field(
        16, ge=1, le=1024, description="into which sales are spread; fixed at the first start"
    )
    allow_volatile: bool = Field(
        False, description="start even on a Redis that evicts keys or does not persist them"
    )

    id_secret: SecretStr = Field(
        SecretStr(""),
        description="keys the hash that turns an Idempotency-Key into an id; the same everywhere",
    )
    id_secret_previous: SecretStr | None = Field(None, description="accepted for replays while rotating")
    admin_key: SecretStr | None = Field(
        None, description="an API key of scope admin, accepted from the start"
    )
    storefront_key: SecretStr | None = Field(
        None, description="an API key of scope storefront, accepted from the start"
    )

    jwt_issuer: str | None = Field(None, description="`iss` that customers' tokens must have")
    jwt_audience: str | None = Field(None, description="`aud` that customers' tokens must have")
    jwt_algorithm: JwtAlgorithm | None = Field(None, description="the one algorithm that is accepted")
    jwt_key: SecretStr | None = Field(None, description="shared secret (HS256) or public key in PEM")
    jwt_key_file: Path | None = Field(None, description="a file with that key, instead")

    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="browser origins that may call, separated by commas"
    )
    rate_limit_address: _RateLimit = Field(
        None, description="of an address (IPv6: a /64), per process: `20/s`, or `600/m:50` for 50 at once"
    )
    rate_limit_customer: _RateLimit = Field(None, description="of a customer, likewise")
    rate_limit_key: _RateLimit = Field(None, description="of an API key, likewise")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="addresses or networks whose `X-Forwarded-For` is believed, separated by commas"
    )
    redis_timeout_seconds: float = Field(
        2.0, gt=0, le=60, description="a script's answer is waited for this long"
    )
    replica_acks: int = Field(
        0, ge=0, le=16, description="replicas that must have a change before it is acknowledged"
    )
    replica_timeout_seconds: float = Field(
        1.0, gt=0, le=60, description="after this, too few of them are `outcome_unknown`"
    )
    redis_connections: int = Field(64, ge=2, le=10_000, description="per process")
    database_connections: int = Field(8, ge=2, le=1_000, description="per process")
    startup_timeout_seconds: float = Field(30.0, gt=0, le=3600, description="stores are waited for this long")
    body_timeout_seconds: float = Field(10.0, gt=0, le=300, description="a request's body may take this long")
    queue_limit: int = Field(
        1_000, ge=1, le=1_000_000, description="new holds under way, per process; past it they are refused"
    )
    request_limit: int = Field(
        8_000, ge=1, le=1_000_000, description="requests under way, per process; past it all are refused"
    )
    max_connections: int = Field(
        20_000, ge=1, le=1_000_000, description="open connections, per process, as far as ulimit -n allows"
    )
    shutdown_grace_seconds: float = Field(
        1.0, ge=0, le=300, description="after SIGTERM, for balancers to see /readyz and leave"
    )
    batch_lines: int = Field(500, ge=20, le=1500, description="cart lines that one script call may decide")
    max_reservations_per_customer: int = Field(
        1_000, ge=1, le=3_000, description="per sale, ended ones included"
    )
    max_reservations_per_sale: int = Field(5_000_000, ge=1, le=50_000_000, description="ended ones included")
    max_journal_entries: int = Field(
        1_000_000, ge=100, le=100_000_000, description="per partition; past it new holds are refused"
    )
    max_journal_bytes: int = Field(
        256 * 2**20,
        ge=2**20,
        le=2**40,
        description="of Redis' memory, per partition; past it new holds are refused",
    )
    memory_watermark: float = Field(
        0.85, gt=0, le=1, description="part of Redis' `maxmemory` past which new holds are refused"
    )
    journal_retention_seconds: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="drained entries are kept this long for a Postgres that lost commits",
    )
    sweep_interval_seconds: float = Field(0.25, gt=0, le=60, description="between looks at the due list")
    hold_retention_seconds: float = Field(
        86_400, ge=86_400, description="after its closing, a sale's ended holds stay in Redis this long"
    )
    worker_metrics_host: str = Field("127.0.0.1", description="the address of the worker's /metrics")
    worker_metrics_port: int | None = Field(
        None, ge=1, le=65_535, description="the port of the worker's /metrics; unset: none"
    )
    log_format: LogFormat = Field(LogFormat.TEXT, description="text or json")
    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR"
    )

    @model_validator(mode="before")
    @classmethod
    def _all_is_text(cls, values: dict[str, Any]) -> dict[str, Any]:
        # Bytes of the environment that are not UTF-8 arrive as lone surrogates.
        for name, value in values.items():
            if (
                isinstance(value, str)
                and not value.isascii()
                and any("\ud800" <= c <= "\udfff" for c in value)
            ):
                raise ValueError(f"{PREFIX}{name.upper()} is not UTF-8")
        return values

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(origin.strip().rstrip("/") for origin in value.split(",") if origin.strip())
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split_proxies(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(name for proxy in value.split(",") if proxy.strip() for name in _networks(proxy))
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not origin.startswith(("http://", "https://")):
                raise ValueError(f"{origin!r} is not an origin such as https://shop.example")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_url_is_one(cls, value: str) -> str:
        if not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        from redis.connection import parse_url

        _check_ports(value)
        try:
            parse_url(value)  # type: ignore[no-untyped-call]
        except ValueError:
            raise ValueError("has an option that Redis' client does not understand") from None
        return value

    @field_validator("database_url")
    @classmethod
    def _database_url_is_one(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must start with postgresql://")
        _check_ports(value.get_secret_value())
        return value

    @field_validator("id_secret", "id_secret_previous")
    @classmethod
    def _secret_is_long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and value.get_secret_value() and len(value.get_secret_value()) < 16:
            raise ValueError("must have at least 16 characters")
        return value

    @field_validator("admin_key", "storefront_key")
    @classmethod
    def _key_is_long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not 16 <= len(value.get_secret_value()) <= 255:
            raise ValueError("must have 16 to 255 characters")
        return value

    @model_validator(mode="after")
    def _jwt_is_whole(self) -> "Settings":
        given = [self.jwt_issuer, self.jwt_audience, self.jwt_algorithm, self.jwt_key or self.jwt_key_file]
        if any(given) and not all(given):
            raise ValueError(
                "HOLDFAST_JWT_ISSUER, _AUDIENCE, _ALGORITHM and _KEY (or _KEY_FILE) belong together"
            )
        if self.jwt_key and self.jwt_key_file:
            raise ValueError("HOLDFAST_JWT_KEY and HOLDFAST_JWT_KEY_FILE exclude each other")
        return self

    @property
    def id_secrets(self) -> tuple[bytes, ...]:
        """The present secret and, while rotating, the previous one; 32 bytes each.

        Raises ConfigurationError if none is set.
        """
        if not self.id_secret.get_secret_value():
            raise ConfigurationError(
                "HOLDFAST_ID_SECRET is not set: give all processes one random text of 16 or more characters"
            )
        secrets = [self.id_secret, self.id_secret_previous]
        return tuple(
            blake2b(secret.get_secret_value().encode(), digest_size=32).digest()
            for secret in secrets
            if secret
        )


def _networks(proxy: str) -> list[str]:
    """The network, and how an IPv6 socket writes it if it is one of IPv4. Raises ValueError."""
    try:
        network = ip_network(proxy.strip())
    except ValueError:
        raise ValueError(f"{proxy.strip()!r} is not an address, nor a network such as 10.0.0.0/8") from None
    if isinstance(network, IPv4Network):
        return [str(network), f"::ffff:{network.network_address}/{96 + network.prefixlen}"]
    return [str(network)]


def _check_ports(url: str) -> None:
    """Raises ValueError, which must not quote `url`: what looks like a port may be part of a password."""
    try:
        parts = urlsplit(url)
        hosts = parts.netloc.rpartition("@")[2].split(",")
        ports = [urlsplit(f"//{host}").port for host in hosts]
        ports += [int(port) for ports in parse_qs(parts.query).get("port", ()) for port in ports.split(",")]
    except ValueError:
        ports = [0]
    if 0 in ports:
        raise ValueError(
            "the address cannot be read: a port is a number from 1 to 65535, and special characters of a "
            "password are written in percent form"
        )


def load_settings(**overrides: Any) -> Settings:
    """The settings from the environment.

    Raises ConfigurationError with a sentence that names the setting that is wrong.
    """
    variables = {f"{PREFIX}{name.upper()}": "" for name in overrides} | os.environ
    sentences = unknown_settings(variables, Settings.model_fields)
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            field = "_".join(str(part) for part in problem["loc"][:1])
            name = f"{PREFIX}{field.upper()}: " if field else ""
            sentences.append(name + problem["msg"].removeprefix("Value error, "))
    if sentences:
        raise ConfigurationError("; ".join(sentences))
    return settings
