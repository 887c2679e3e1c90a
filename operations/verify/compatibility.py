"""Whether a scratch engine is fit for a set: of its version, with its extensions and modules.

One that is not refuses sound data, and that is no fault of the set: such a proof is partial at the level that it did
reach. Asked only where something was refused, so that it costs a good proof nothing.
"""

from __future__ import annotations

import re

from archive.manifest import Manifest
from components.base import Restore, Scratch, Step
from operations.runner.context import RunContext
from operations.verify.scratch import Unrestorable, engines
from operations.verify.scratch_pod import Request

STEP = "version"


def version_mismatch(manifest: Manifest, version: str) -> str:
    """Why differences may be the version's doing and not the set's; "" where they are not.

    Args:
        manifest: of the set.
        version: of the scratch engine, with its name; "" where it is not known.
    """
    ours, theirs = _major(version), _major(manifest.engine.version)
    if not (ours and theirs) or ours == theirs:
        return ""
    return f"the scratch engine is {version}, but the backup is from {manifest.engine.version}"


def incompatibility(
    request: Request,
    restore: Restore,
    wanted: tuple[Scratch, ...],
    refused: Unrestorable,
    version: str,
    context: RunContext,
) -> str:
    """Why the set is not to blame for what was refused; "" where it is.

    Args:
        request: for what.
        restore: of the component.
        wanted: the scratch engines.
        refused: what they said.
        version: of the scratch engine; "" where it did not come to answer.
        context: of the run.

    Raises:
        TemporaryError: the cluster did not get the image to say its version.
    """
    lacking = restore.lacking and re.search(restore.lacking, refused.said)
    if lacking:
        return f"the scratch engine lacks what the backup needs: {lacking[0]}"
    if not version and restore.version and wanted:
        version = _version_of(request, restore, wanted[0], context)
    return version_mismatch(request.manifest, version)


def _version_of(request: Request, restore: Restore, like: Scratch, context: RunContext) -> str:
    """What the program of an engine's image calls itself: of an engine that did not start, nobody else can say it."""
    # a container's words reach the API server where it ends badly
    say = Step(STEP, ("sh", "-c", f"{' '.join(restore.version)}; exit 1"), "L2")
    asked = Scratch(STEP, like.workload, like.container, ("true",), like.port, steps=(say,))
    try:
        with engines(request, (asked,), restore.ask, context):
            return ""
    except Unrestorable as exc:
        return exc.said


def _major(version: str) -> str:
    """The number that decides whether two versions read each other's data."""
    found = re.search(r"(\d+)\.\d", version)
    return found[1] if found else ""
