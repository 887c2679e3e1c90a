"""Renders the declared files with the settings of a site: what `isa render` writes and `deploy` applies.

The files stay plain YAML. `${storage.block.provisioner}` stands for a setting; a scalar that is
nothing else keeps the setting's type. Two annotations steer a document and are not part of the
result: `isa-cloud.io/when: SETTING` (only if it is set) and `isa-cloud.io/for-each: SETTING` (one
document an item, `${item.KEY}`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cluster.helm.releases import load_releases
from cluster.manifests import Manifest, without_nulls
from config.loading import keys
from config.models import COMPONENTS, Settings
from config.text.documents import read
from errors import ConfigurationError, Fault

PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
WHEN, FOR_EACH = "isa-cloud.io/when", "isa-cloud.io/for-each"


def render_manifest(path: Path, settings: Settings) -> list[Manifest]:
    """Render a file of manifests.

    Args:
        path: YAML stream with placeholders.
        settings: of the environment.

    Returns:
        The manifests that this environment has.

    Raises:
        ConfigurationError: a placeholder names no setting, or the file is not good YAML; told
            with file and path in it.
    """
    rendered: list[Manifest] = []
    faults: list[Fault] = []
    for number, document in enumerate(read_documents(path), 1):
        source = _Source(f"{path}: document {number}", settings, faults)
        metadata = document.get("metadata") or {}
        annotations = metadata.get("annotations") or {}
        when, each = annotations.pop(WHEN, None), annotations.pop(FOR_EACH, None)
        if metadata.get("annotations") == {}:
            del metadata["annotations"]
        if when is not None and not source.setting(when, f"annotation {WHEN}"):
            continue
        if each is None:
            rendered.append(without_nulls(source.fill(document, "")))
            continue
        items = source.setting(each, f"annotation {FOR_EACH}")
        if items is not None and not isinstance(items, list):
            source.fault(f"annotation {FOR_EACH}", f"setting {each!r} is not a list")
            continue
        rendered += [without_nulls(source.of(item).fill(document, "")) for item in items or ()]
    if faults:
        raise ConfigurationError(list(dict.fromkeys(faults)))
    return rendered


def site_values(settings: Settings) -> dict[str, dict[str, Any]]:
    """Render the values that belong to the site; they are the last of each release.

    Args:
        settings: of the environment.

    Returns:
        Helm values by release name; a release without values of the site is absent.

    Raises:
        ConfigurationError: as `render_manifest`, or a name that helmfile.yaml does not declare.
    """
    path = settings.platform.site_values
    documents = read_documents(path)
    faults: list[Fault] = []
    if len(documents) > 1:
        raise ConfigurationError([Fault(str(path), f"has {len(documents)} documents, must be one")])
    declared = load_releases(settings.platform.helmfile, COMPONENTS).releases
    releases = [release.name for release in declared]
    values: dict[str, dict[str, Any]] = {}
    source = _Source(str(path), settings, faults)
    for name, entry in documents[0].items() if documents else ():
        filled = source.fill(entry, str(name))
        if name not in releases and _stem(str(name)) in map(_stem, releases):
            continue  # a member that this environment goes without, as the sandbox without neo4j-2
        if name not in releases:
            near = difflib.get_close_matches(str(name), releases, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(releases)}"
            source.fault(str(name), "is not a release of helmfile.yaml", hint)
        elif not isinstance(filled, dict):
            source.fault(str(name), "must be a map of helm values")
        values[name] = filled
    if faults:
        raise ConfigurationError(faults)
    return values


def _stem(release: str) -> str:
    """A numbered release's name without its number."""
    return re.sub(r"(?<=-)\d+$", "", release)


class _Source:
    """Settings as the source of placeholders, collecting faults.

    Args:
        where: file, and document in it, for the faults.
        settings: of the environment.
        faults: collects what is wrong.
        item: what `${item.KEY}` stands for, inside a `for-each`.
    """

    def __init__(
        self,
        where: str,
        settings: Settings,
        faults: list[Fault],
        item: Mapping[str, Any] | None = None,
    ) -> None:
        self.where = where
        self.settings = settings
        self.faults = faults
        self.item = item

    def of(self, item: Mapping[str, Any]) -> _Source:
        return _Source(self.where, self.settings, self.faults, item)

    def fault(self, path: str, message: str, hint: str = "") -> None:
        self.faults.append(Fault(f"{self.where}: {path}", message, hint))

    def setting(self, dotted: str, path: str) -> Any:
        value: Any = self.settings
        parts = dotted.split(".")
        if self.item is not None and parts[0] == "item":
            value, parts = self.item, parts[1:]
        for part in parts:
            if isinstance(value, BaseModel) and _is_setting(type(value), part):
                value = getattr(value, part)
            elif isinstance(value, Mapping) and part in value:
                value = value[part]
            else:
                known = [*keys(), *(f"item.{key}" for key in self.item or ())]
                near = difflib.get_close_matches(dotted, known, 1)
                hint = f"did you mean ${{{near[0]}}}?" if near else "see docs/reference/settings.md"
                self.fault(path, f"there is no setting {dotted!r}", hint)
                return None
        return _plain(value)

    def fill(self, value: Any, path: str) -> Any:
        """Put settings into all keys and scalars; `path` leads to the value, for the faults."""
        if isinstance(value, dict):
            return {
                self.text(key, path): self.fill(entry, f"{path}.{key}".lstrip("."))
                for key, entry in value.items()
            }
        if isinstance(value, list):
            return [self.fill(entry, f"{path}[{index}]") for index, entry in enumerate(value)]
        whole = PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
        return self.setting(whole[1], path) if whole else self.text(value, path)

    def text(self, value: Any, path: str) -> Any:
        """Put settings into a text; what is not text stays as it is."""
        if not isinstance(value, str):
            return value

        def replace(match: re.Match[str]) -> str:
            before = len(self.faults)
            entry = self.setting(match[1], path)
            if len(self.faults) == before and (entry is None or isinstance(entry, (dict, list))):
                kind = "not set" if entry is None else "a map or list"
                hint = f"{match[0]} inside longer text must be a text or a number"
                self.fault(path, f"setting {match[1]!r} is {kind}", hint)
            return str(entry)

        return PLACEHOLDER.sub(replace, value)


def _is_setting(model: type[BaseModel], name: str) -> bool:
    """Whether a section has it, or makes it of others."""
    made = name in vars(model) and isinstance(vars(model)[name], property)
    return made or name in model.model_fields


def _plain(value: Any) -> Any:
    """A setting as YAML knows it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return str(value) if isinstance(value, Path) else value


def read_documents(path: Path) -> list[dict[str, Any]]:
    """The maps of a YAML stream.

    Raises:
        ConfigurationError: with every fault of the file.
    """
    found, faults = read(path)
    documents = [document for document in found if document]
    if any(not isinstance(document, dict) for document in documents):
        faults.append(Fault(str(path), "must be a stream of maps"))
    if faults:
        raise ConfigurationError(faults)
    return documents
