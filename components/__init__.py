"""The seven engines, one folder each with the same file names, in deployment order."""

from __future__ import annotations

from archive.backup.manifest import PLATFORM
from components.base import BackupTarget, Component
from config import models

COMPONENTS: dict[str, Component] = {name: Component(name) for name in models.COMPONENTS}

# What backups are taken of: the engines, and what runs them.
SETS: dict[str, BackupTarget] = {**COMPONENTS, PLATFORM: BackupTarget(PLATFORM)}
