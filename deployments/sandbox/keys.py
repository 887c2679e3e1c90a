"""The sandbox's own age keys: one for the verify pool, one that stands for the offline break-glass key."""

from __future__ import annotations

from pathlib import Path

from deployments.sandbox.paths import write_atomic

NAMES = ("verify", "break-glass")


def identity_file(directory: Path, name: str) -> Path:
    """File of a private key, as `age -i` reads it; made at the first call."""
    import pyrage

    file = directory / "keys" / f"{name}.age-identity"
    if not file.exists():
        identity = pyrage.x25519.Identity.generate()
        write_atomic(file, f"# public key: {identity.to_public()}\n{identity}\n")
    return file


def signers(directory: Path) -> list[str]:
    """The public keys that evidence is signed with by whoever holds one of the private ones, for the settings."""
    from archive.evidence import signer_of

    return [
        signer_of(identity_file(directory, name).read_text().splitlines()[-1]) for name in NAMES
    ]


def recipients(directory: Path) -> list[str]:
    """The public keys, for the settings."""
    import pyrage

    lines = [identity_file(directory, name).read_text().splitlines()[-1] for name in NAMES]
    return [str(pyrage.x25519.Identity.from_str(line).to_public()) for line in lines]
