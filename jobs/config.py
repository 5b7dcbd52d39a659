"""The configuration: a TOML file, environment overrides, and errors that name the key.

Imports pydantic and the standard library only, so that `nightrank --help` stays instant.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from jobs.config_checks import contradictions
from jobs.config_errors import problem, unknown
from jobs.config_inputs import (
    EventsConfig,
    ItemsConfig,
    ReviewsConfig,
    SafeName,
    SourcesConfig,
    UsersConfig,
)
from jobs.config_sections import (
    CampaignConfig,
    CandidatesConfig,
    EncoderConfig,
    GatesConfig,
    IndexConfig,
    MartConfig,
    PredictConfig,
    ProfileConfig,
    RetentionConfig,
    ScoringConfig,
    TrainingConfig,
)
from jobs.errors import ConfigError

ENV_PREFIX = "NIGHTRANK__"


class Config(BaseSettings):
    """The whole configuration; see docs/config.md."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
    )

    name: SafeName = Field(description="Name of this set of scores.")
    sources: SourcesConfig = Field(description="Give [sources] with items and events.")
    items: ItemsConfig = ItemsConfig()
    users: UsersConfig = UsersConfig()
    reviews: ReviewsConfig = ReviewsConfig()
    events: EventsConfig = EventsConfig()
    encoder: EncoderConfig = EncoderConfig()
    profile: ProfileConfig = ProfileConfig()
    candidates: CandidatesConfig = CandidatesConfig()
    index: IndexConfig = IndexConfig()
    predict: list[PredictConfig] = Field(
        min_length=1, description="Give one or more [[predict]] with behaviour and horizon_days."
    )
    training: TrainingConfig = TrainingConfig()
    scoring: ScoringConfig = ScoringConfig()
    gates: GatesConfig = GatesConfig()
    retention: RetentionConfig = RetentionConfig()
    mart: MartConfig = MartConfig()
    campaign: list[CampaignConfig] = []

    def prediction(self, behaviour: str) -> PredictConfig:
        """The [[predict]] of a behaviour.

        Raises:
            KeyError: It is not predicted.
        """
        return {wanted.behaviour: wanted for wanted in self.predict}[behaviour]

    @property
    def longest_horizon_days(self) -> int:
        """How far windows lie apart, so that none reaches into the next."""
        return max(wanted.horizon_days for wanted in self.predict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment override the file, whose values are the init arguments."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        if found := list(contradictions(self)):
            raise ValueError("\n".join(found))
        return self


def load_config(path: Path) -> Config:
    """Read a TOML file and the environment variables that override it.

    Raises:
        ConfigError: one line per problem, naming file (or variable), key, value and what is
            allowed.
    """
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # a TOML syntax error (names its line), or not UTF-8
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    variables = {
        name: name[len(ENV_PREFIX) :].lower().split("__")[0]
        for name in os.environ
        if name.upper().startswith(ENV_PREFIX)
    }
    origins = {str(path): list(given), **{name: [key] for name, key in variables.items()}}
    strangers = [
        f"{origin}: {unknown(Config, [key])}"
        for origin, keys in origins.items()
        for key in keys
        if key not in Config.model_fields
    ]
    if strangers:
        raise ConfigError("\n".join(strangers))
    try:
        return Config(**given)
    except ValidationError as error:
        details = [problem(Config, detail, path, ENV_PREFIX) for detail in error.errors()]
        raise ConfigError("\n".join(details)) from None
    except SettingsError as error:
        raise ConfigError(f"environment: {error}: {error.__cause__}") from None


def to_toml(config: Config) -> str:
    """The effective configuration as TOML; keys without a value (None) are left out.

    `load_config` of the text gives an equal configuration.
    """
    import tomli_w

    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
