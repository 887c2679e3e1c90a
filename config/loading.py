"""Loads the settings of an environment: its file, variables over it, all faults in one report."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from config.models import Settings
from config.text.documents import parse
from config.text.documents import read as documents_of
from config.values import Image, Section
from errors import ArgumentError, ConfigurationError, Fault

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "ISA_"
ENVIRONMENT = "ISA_ENV"  # names the settings file of a shell or a worker
DESIGN = "deployments/kubernetes/production/PRODUCTION_DESIGN.md"
# Where a person can read a value that has no default.
WHERE_TO_READ = {
    "storage.block.provisioner": "install the array's CSI driver, then read its name with: kubectl get "
    "csidrivers,storageclass -o yaml",
    "storage.block.parameters": "install the array's CSI driver, then read them in the driver's own class: kubectl "
    "get csidrivers,storageclass -o yaml",
    "storage.nfs.server": "the array's share page: address of the NFS service",
    "storage.nfs.share": "the array's share page: the exported path",
    "storage.object.endpoint": "the array's object service page: its https address",
    "storage.object.bucket": "the array's object service page: a bucket used for backups only",
    "licences.neo4j": f'"yes" or "eval"; {DESIGN} "Licences" says what each means',
    "licences.emqx": f'apache or enterprise; {DESIGN} "Licences" says what each means',
    "images": f'{DESIGN} "Images" lists the choices',
    "backup.age_recipients": "age-keygen prints a public key. At least two key pairs are needed; keep one private "
    "key offline",
}


def load(environment: str, environ: Mapping[str, str] = os.environ, root: Path = ROOT) -> Settings:
    """Load and check the settings of an environment.

    Args:
        environment: name of a file in config/environments.
        environ: variables such as ISA_STORAGE__NFS__SERVER, which win over the file; maps and
            lists are written as JSON or YAML.
        root: directory against which the file's paths are resolved.

    Returns:
        The settings, all declared files as absolute paths.

    Raises:
        ConfigurationError: with every fault, each with file and key, or variable, and where to read
            the right value.
    """
    directory = root / "config" / "environments"
    environments = sorted(path.stem for path in directory.glob("*.yaml"))
    if environment not in environments:
        raise ArgumentError(
            [_unknown("config/environments", environment, environments, "environment")]
        )
    file = f"config/environments/{environment}.yaml"
    document, faults = _read(root / file, file)
    origin: dict[str, str] = {}
    faults += _override(document, environ, origin)
    _open_sections(document, Settings)
    if document.get("environment", environment) != environment:
        message = f"is {document['environment']!r}, but the file is {environment}.yaml"
        faults.append(Fault(f"{file}: environment", message, "they must be the same"))
    try:
        settings = Settings.model_validate(document, context={"root": root})
    except ValidationError as exc:
        faults += [_fault(error, file, origin) for error in exc.errors()]
        # the cause is left out: pydantic repeats inputs, and an endpoint may hold a password
        raise ConfigurationError(faults) from None
    if faults:
        raise ConfigurationError(faults)
    return settings


def keys(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[str]:
    """All settings by their dotted names, sections included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, f"{prefix}{name}.")


def variable(dotted: str) -> str:
    """Name of the environment variable that overrides a setting."""
    return PREFIX + dotted.upper().replace(".", "__")


def _read(path: Path, file: str) -> tuple[dict[str, Any], list[Fault]]:
    documents, faults = documents_of(path, file)
    document = documents[0] if len(documents) == 1 else None
    if not isinstance(document, dict):
        raise ConfigurationError(
            [Fault(file, "must be a map of sections", "see docs/reference/settings.md")]
        )
    return document, faults


def _override(
    document: dict[str, Any], environ: Mapping[str, str], origin: dict[str, str]
) -> list[Fault]:
    """Put the variables into the document; a section first, then single keys of it."""
    faults: list[Fault] = []
    dotted_names = set(keys())
    for name in sorted(environ):  # a section before its keys
        path = name.removeprefix(PREFIX).lower().split("__")
        if not name.startswith(PREFIX) or len(path) < 2:
            continue  # others use the prefix too, and never two underscores
        origin_name, dotted = f"environment variable {name}", ".".join(path)
        if dotted not in dotted_names:
            faults.append(_unknown(origin_name, dotted, sorted(dotted_names), "setting"))
            continue
        value, value_faults = _value(environ[name], origin_name)
        faults += value_faults
        section: Any = document
        for part in path[:-1]:
            if section.get(part) is None:
                section[part] = {}
            section = section[part]
            if not isinstance(section, dict):
                break
        if isinstance(section, dict):
            section[path[-1]] = value
            origin[dotted] = name
        else:
            section_name = ".".join(path[:-1])
            faults.append(
                Fault(
                    origin_name,
                    f"{section_name} is not a map",
                    f"set {variable(section_name)} as a whole",
                )
            )
    return faults


def _value(text: str, origin: str) -> tuple[Any, list[Fault]]:
    """Read maps, lists and null as YAML; other text stays text, which the models convert."""
    try:
        documents, faults = parse(text, origin)
    except yaml.YAMLError as exc:
        if text.lstrip().startswith(("{", "[")):
            return None, [Fault(origin, f"is not valid JSON or YAML: {exc}")]
        return text, []
    if len(documents) > 1:
        return text, []
    value = documents[0] if documents else None
    empty = value is None and text.strip() != ""  # an explicit null
    quoted = isinstance(value, str) and text.lstrip().startswith(("'", '"'))
    return (value, faults) if isinstance(value, (dict, list)) or empty or quoted else (text, [])


def _open_sections(document: dict[str, Any], model: type[BaseModel]) -> None:
    """Add missing sections as empty ones.

    Each key that they lack is then reported by its name, and a default path is resolved like a written one.
    """
    for name, field in model.model_fields.items():
        kind = field.annotation
        if not (isinstance(kind, type) and issubclass(kind, Section)) or kind is Image:
            continue
        optional = not any(inner.is_required() for inner in kind.model_fields.values())
        if document.get(name) is None and (field.is_required() or name in document or optional):
            document[name] = {}
        if isinstance(document.get(name), dict):
            _open_sections(document[name], kind)


def _fault(error: Any, file: str, origin: Mapping[str, str]) -> Fault:
    parts = [str(part) for part in error["loc"]]
    dotted = ".".join(parts)
    sources = [key for key in origin if dotted == key or dotted.startswith(f"{key}.")]
    where = f"{file}: {dotted}" if dotted else file  # a fault between sections has no key
    if sources:
        source = max(sources, key=len)
        where = f"environment variable {origin[source]}" + (f": {dotted}" * (dotted != source))
    if error["type"] == "extra_forbidden":
        return _unknown(where, dotted, sorted(keys()), "setting")
    hint = WHERE_TO_READ.get(dotted) or (WHERE_TO_READ["images"] if parts[:1] == ["images"] else "")
    if error["type"] == "missing":
        ways = (
            f"or set {variable(dotted)}"
            if dotted in set(keys())
            else "see docs/reference/settings.md"
        )
        return Fault(where, "is required and has no default", f"{hint}; {ways}" if hint else ways)
    return Fault(where, str(error["msg"]).removeprefix("Value error, "), hint)


def _unknown(where: str, name: str, known: list[str], what: str) -> Fault:
    section, _, key = name.rpartition(".")
    siblings = {
        entry.rpartition(".")[2]: entry for entry in known if entry.rpartition(".")[0] == section
    }
    near = difflib.get_close_matches(key, siblings, 1)
    nearest = [siblings[near[0]]] if near else difflib.get_close_matches(name, known, 1)
    if nearest:
        hint = f"did you mean {nearest[0]}?"
    else:
        hint = (
            f"known: {', '.join(sorted(siblings.values()))}"
            if siblings
            else "see docs/reference/settings.md"
        )
    return Fault(where, f"unknown {what} {name!r}", hint)
