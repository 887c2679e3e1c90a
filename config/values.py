"""Building blocks of settings: checked scalars, and the section that refuses unknown keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

# A registry is a host with a dot or a port, or localhost; without one Docker Hub would be guessed:
# https://pkg.go.dev/github.com/distribution/reference
IMAGE = re.compile(
    r"(?P<registry>localhost|[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)+(?::\d+)?|[a-zA-Z0-9-]+:\d+)"
    r"/(?P<repository>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r":(?P<tag>\w[\w.-]{0,127})(?:@(?P<digest>sha256:[a-f0-9]{64}))?"
)
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"


def _number(value: Any) -> Any:
    # Python counts true as 1; in a settings file it is a slip
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {str(value).lower()}")
    return value


def _declared(path: Path, info: ValidationInfo) -> Path:
    """Resolve a path against the project's root, which `config.loading` gives as context."""
    if info.context is None:
        return path
    resolved: Path = (info.context["root"] / path).resolve()
    if not resolved.is_file():
        raise ValueError(f"file {resolved} does not exist")
    return resolved


def _of_user(path: Path) -> Path:
    """Expand `~`, because not every program does."""
    try:
        return path.expanduser()
    except RuntimeError as exc:  # such as ~nobody-of-that-name
        raise ValueError(f"{path}: {exc}") from exc


def _of_project(path: Path, info: ValidationInfo) -> Path:
    """A path against the project's root, `~` against the user's home."""
    path = _of_user(path)
    return path if info.context is None else (info.context["root"] / path).resolve()


DnsLabel = Annotated[str, Field(pattern=DNS_LABEL)]
Count = Annotated[int, BeforeValidator(_number)]
Seconds = Annotated[float, BeforeValidator(_number)]
DeclaredFile = Annotated[Path, AfterValidator(_declared)]
UserPath = Annotated[Path, AfterValidator(_of_user)]
ProjectPath = Annotated[Path, AfterValidator(_of_project)]


class Section(BaseModel):
    """Base of all settings: unknown keys are faults, values are immutable."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        str_min_length=1,
        str_strip_whitespace=True,
        allow_inf_nan=False,
    )


class Image(Section):
    """A pinned image, written `registry/repository:tag` or `registry/repository:tag@sha256:…`."""

    registry: str = Field(description="host[:port]")
    repository: str = Field(description="path in the registry")
    tag: str = Field(description="version")
    digest: str = Field(default="", description="sha256:…; unset: the tag alone pins it")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, data: Any) -> Any:
        if isinstance(data, Image):
            return data
        match = IMAGE.fullmatch(data.strip()) if isinstance(data, str) else None
        if match is None:
            raise ValueError(
                "must be registry/repository:tag, such as registry.example.com/bitnami/redis:8.2.1"
            )
        if match["tag"] == "latest":
            raise ValueError(
                "`latest` is not a version: a rollback could not restore the old image"
            )
        return {name: text for name, text in match.groupdict().items() if text}

    @property
    def pinned_tag(self) -> str:
        """Return tag and digest, for charts that only know a tag: they append it to the repository after a colon."""
        return f"{self.tag}@{self.digest}" if self.digest else self.tag

    @property
    def reference(self) -> str:
        """Return the reference as a container names it."""
        return f"{self.registry}/{self.repository}:{self.pinned_tag}"
