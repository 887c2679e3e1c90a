"""The sandbox's keys: age keys of the verify pool and for emergencies, and the signing key of the backup workers."""

from __future__ import annotations

from pathlib import Path

from sandbox.machine.paths import write_atomic

NAMES = ("verify", "break-glass")


def identity_file(directory: Path, name: str) -> Path:
    """File of an age private key, in the format of `age -i`. It is created at the first call."""
    import pyrage

    file = directory / "keys" / f"{name}.age-identity"
    if not file.exists():
        identity = pyrage.x25519.Identity.generate()
        write_atomic(file, f"# public key: {identity.to_public()}\n{identity}\n")
    return file


def signers(directory: Path) -> list[str]:
    """The public keys that sign evidence, for `verify.signers`: one for each age private key."""
    from archive.evidence.verdicts import signer_of

    return [
        signer_of(identity_file(directory, name).read_text(encoding="utf-8").splitlines()[-1])
        for name in NAMES
    ]


def signing_file(directory: Path) -> Path:
    """File of the backup workers' private key, in the format of `openssl genpkey`. It is created at the first call."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    file = directory / "keys" / "backup-signing.pem"
    if not file.exists():
        made = Ed25519PrivateKey.generate()
        text = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomic(file, text.decode())
    return file


def backup_signers(directory: Path) -> list[dict[str, str]]:
    """The public keys that sign manifests, for `backup.signers`."""
    from archive.signing import public_half, read_signing_key

    file = signing_file(directory)
    return [{"key": public_half(read_signing_key(file.read_text(encoding="utf-8"), str(file)))}]


def recipients(directory: Path) -> list[str]:
    """The age public keys, for `backup.age_recipients`."""
    import pyrage

    lines = [
        identity_file(directory, name).read_text(encoding="utf-8").splitlines()[-1]
        for name in NAMES
    ]
    return [str(pyrage.x25519.Identity.from_str(line).to_public()) for line in lines]
