"""Writes what a deploy applies into a directory, to deploy with kubectl and helmfile instead of isa.

Output is JSON, which is YAML in which a text cannot be read as anything else. Values files are copied unchanged.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.helm.charts import kept_archive
from cluster.helm.releases import Release, load_releases
from config.models import COMPONENTS, Settings
from config.text.documents import dump
from errors import ArgumentError, Fault
from operations.environment.render import read_documents, render_manifest, site_values

HEADER = "# Written by `isa render`; the next rendering replaces it.\n"
CONTENTS = (
    "SHA256SUMS"  # lists every other file of a rendering: `sha256sum -c` says what was edited
)


def write_rendered(settings: Settings, directory: Path) -> None:
    """Write everything that a deploy applies, so that kubectl and helmfile can apply it.

    All paths in it are relative, and stored charts are included: it can be copied to another machine.
    The directory is created beside its target and moved there, so that it is never incomplete.

    Args:
        settings: of the environment.
        directory: absent, empty, or an older rendering, which is replaced as a whole.

    Raises:
        ConfigurationError: the declared files have faults.
        ArgumentError: the directory holds other files, or cannot be written.
    """
    target = directory.resolve()
    if target.exists() and not _replaceable(target):
        hint = "name a new or empty directory: only an older rendering is replaced"
        raise ArgumentError(
            [Fault(str(target), "holds files that `isa render` did not write", hint)]
        )
    try:
        files = _rendered_files(settings)
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except (OSError, tarfile.TarError) as exc:
        raise ArgumentError([Fault(str(target.parent), f"cannot be written: {exc}")]) from exc
    try:
        fresh = work / "new"
        sums = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()]
        for name, data in {**files, CONTENTS: "".join(sums).encode()}.items():
            file = fresh / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        if target.exists():
            target.rename(work / "old")
        fresh.rename(target)
    except OSError as exc:
        raise ArgumentError([Fault(str(target), f"cannot be written: {exc}")]) from exc
    finally:
        shutil.rmtree(work)


def _rendered_files(settings: Settings) -> dict[str, bytes]:
    """Everything by its relative name."""
    platform = settings.platform
    files = {
        f"manifests/{path.name}": _yaml(list(render_manifest(path, settings)))
        for path in (platform.storage_manifest, platform.namespace_manifest)
    }
    site = site_values(settings)
    declared = load_releases(platform.helmfile, COMPONENTS, settings.charts.mirrors).releases
    (helmfile,) = read_documents(platform.helmfile)
    for repository in helmfile.get("repositories") or ():
        _mirror(repository, settings.charts.mirrors)
    for entry, release in zip(helmfile["releases"], declared, strict=True):
        entry["chart"] = _add_chart(files, settings.charts.directory, release, entry["chart"])
        entry["values"] = [
            _add_file(files, "values", value) if isinstance(value, Path) else dict(value)
            for value in release.values
        ]
        if release.name in site:
            name = f"values/{release.name}.site.yaml"
            files[name] = _yaml([site[release.name]])
            entry["values"].append(name)
    # archives hold their dependencies: helmfile would ask the hosts for them again
    helmfile["helmDefaults"] = {**(helmfile.get("helmDefaults") or {}), "skipDeps": True}
    return {**files, "helmfile.yaml": _helmfile(helmfile)}


def _helmfile(document: Mapping[str, Any]) -> bytes:
    """Its top-level keys start lines, where helmfile looks for them (pkg/policy/checker.go)."""
    keys = (f"{key}:\n{textwrap.indent(dump(value), '  ')}" for key, value in document.items())
    return (HEADER + "".join(keys)).encode()


def _yaml(documents: list[Any]) -> bytes:
    return (HEADER + "---\n".join(map(dump, documents))).encode()


def _mirror(repository: dict[str, Any], mirrors: Mapping[str, str]) -> None:
    address = mirrors.get(repository["name"])
    if address is not None:
        oci = address.startswith("oci://")
        repository.update(url=address.removeprefix("oci://"), oci=oci)


def _add_file(files: dict[str, bytes], directory: str, path: Path) -> str:
    """Copy a file as it is; another one of the same name gets a number."""
    data, number = path.read_bytes(), 1
    name = f"{directory}/{path.name}"
    while files.get(name, data) != data:
        number += 1
        name = f"{directory}/{path.stem}-{number}{path.suffix}"
    files[name] = data
    return name


def _add_chart(files: dict[str, bytes], kept: Path, release: Release, declared: str) -> str:
    """Copy a release's chart as a directory, if it is local or its archive is kept; where helmfile finds it."""
    archive = kept_archive(kept, release)
    if archive is not None:
        name = f"charts/{release.locked_as}"
        with tarfile.open(archive) as tar:
            members = [member for member in tar.getmembers() if member.isfile()]
            for member in members:
                path = Path(member.name)
                content = tar.extractfile(member)
                if content is not None and not path.is_absolute() and ".." not in path.parts:
                    files["/".join((name, *path.parts[1:]))] = content.read()
        return f"./{name}"
    if not release.version:
        source = Path(release.chart)
        name = f"charts/{source.name}"
        for path in sorted(source.rglob("*")):
            if path.is_file():
                files[f"{name}/{path.relative_to(source)}"] = path.read_bytes()
        return f"./{name}"
    return declared


def _replaceable(directory: Path) -> bool:
    """Whether a directory can be replaced without losing anything that is not a rendering."""
    if not directory.is_dir():
        return False
    files = {str(p.relative_to(directory)) for p in directory.rglob("*") if not p.is_dir()}
    contents = directory / CONTENTS
    if not files or not contents.is_file():
        return not files
    lines = contents.read_text(encoding="utf-8", errors="replace").splitlines()
    return files <= {CONTENTS, *(line.partition("  ")[2] for line in lines)}
