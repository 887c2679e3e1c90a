"""Whether a scratch engine is compatible with a backup: same version, extensions and modules.

An incompatible one refuses valid data, which is not a fault of the backup: such a verification is partial at the level
that it reached. Checked only after a refusal, so that it costs a good verification nothing.
"""

from __future__ import annotations

import re

from archive.backup.manifest import Manifest
from components.base import Restore, Scratch, Step
from operations.runner.context import RunContext
from operations.verify.scratch import Unrestorable, engines
from operations.verify.scratch_pod import Request

STEP = "version"


def version_mismatch(manifest: Manifest, version: str) -> str:
    """Return why differences may be caused by the version and not by the backup; "" if they are not.

    Args:
        manifest: of the set.
        version: of the scratch engine, with its name; "" if unknown.
    """
    ours, theirs = _major(version), _major(manifest.engine.version)
    if not (ours and theirs) or ours == theirs:
        return ""
    return f"the scratch engine is {version}, but the backup is from {manifest.engine.version}"


def incompatibility(
    request: Request,
    restore: Restore,
    scratches: tuple[Scratch, ...],
    refused: Unrestorable,
    version: str,
    context: RunContext,
) -> str:
    """Return why a refusal is not a fault of the backup; "" if it is one.

    Args:
        request: for what.
        restore: of the component.
        scratches: the scratch engines.
        refused: their message.
        version: of the scratch engine; "" if it did not answer.
        context: of the run.

    Raises:
        TemporaryError: the cluster could not run the image to print its version.
    """
    missing = restore.lacking and re.search(restore.lacking, refused.said)
    if missing:
        return f"the scratch engine lacks what the backup needs: {missing[0]}"
    if not version and restore.version and scratches:
        version = _version_of(request, restore, scratches[0], context)
    return version_mismatch(request.manifest, version)


def _version_of(request: Request, restore: Restore, like: Scratch, context: RunContext) -> str:
    """Return the version printed by the engine's image, for an engine that did not start."""
    # a container's words reach the API server where it ends badly
    say = Step(STEP, ("sh", "-c", f"{' '.join(restore.version)}; exit 1"), "L2")
    scratch = Scratch(STEP, like.workload, like.container, ("true",), like.port, steps=(say,))
    try:
        with engines(request, (scratch,), restore.ask, context):
            return ""
    except Unrestorable as exc:
        return exc.said


def _major(version: str) -> str:
    """Return the part of a version that decides whether two versions can read each other's data."""
    match = re.search(r"(\d+)\.\d", version)
    return match[1] if match else ""
