"""The sandbox's own keys: age keys of the verify pool and for breaking glass, and the backup workers' signing key."""

from __future__ import annotations

from pathlib import Path

from sandbox.paths import write_atomic

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
        signer_of(identity_file(directory, name).read_text(encoding="utf-8").splitlines()[-1])
        for name in NAMES
    ]


def signing_file(directory: Path) -> Path:
    """File of the backup workers' private key, as `openssl genpkey` writes it; made at the first call."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    file = directory / "keys" / "backup-signing.pem"
    if not file.exists():
        made = Ed25519PrivateKey.generate()
        text = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomic(file, text.decode())
    return file


def backup_signers(directory: Path) -> list[dict[str, str]]:
    """Whose manifests count, for the settings."""
    from archive.signing import public_half, read_signing_key

    file = signing_file(directory)
    return [{"key": public_half(read_signing_key(file.read_text(encoding="utf-8"), str(file)))}]


def recipients(directory: Path) -> list[str]:
    """The public keys, for the settings."""
    import pyrage

    lines = [
        identity_file(directory, name).read_text(encoding="utf-8").splitlines()[-1]
        for name in NAMES
    ]
    return [str(pyrage.x25519.Identity.from_str(line).to_public()) for line in lines]
