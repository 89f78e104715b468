"""The seal of a run's folder: the ledger's entries chained, and the end of the chain signed.

    privacy_ledger.jsonl   each line with the digest of all lines up to it
    ledger_seal.json       how many lines, the last digest, digests of the other files; signed
    signing_key.pem        the run's private key, until the run ends

While a run goes on, its seal covers the first lines of the ledger; a crash may leave more. The
shorter seal is written before the ledger is cut for a resume, so the seal never covers what is not
there, and a ledger that is too short was cut by somebody else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from fedfuse_ray.errors import FedfuseError, InputError
from fedfuse_ray.files import write_atomic, write_text
from fedfuse_ray.privacy.accounting.chain import Chain, Link, follow
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent, append_events
from fedfuse_ray.privacy.accounting.signing import fingerprint, make_private, read_private
from fedfuse_ray.privacy.identities import Identity
from fedfuse_ray.privacy.identities import verify as signed_by

LEDGER, SEAL, KEY = "privacy_ledger.jsonl", "ledger_seal.json", "signing_key.pem"
_CONFIG = "config.yaml"
FILES = (
    _CONFIG,
    "environment.json",
    "rounds.parquet",
    "institutions.parquet",
    "evaluation.json",
    "summary.json",
    "refused.jsonl",
    "audit.json",
)
"""What is signed beside the ledger, as far as it is there. The report can be written again."""

State = Literal["running", "stopped", "finished"]
_CONTEXT = b"fedfuse_ray ledger seal, version 1\n"


@dataclass(frozen=True)
class Statement:
    """What is signed.

    Attributes:
        state: `stopped` is a trial that its search gave up.
        entries: How many entries the ledger has.
        head: The last one's digest, hex.
        files: SHA-256 of other files, hex; of the configuration alone while the run goes on.
        weights_sha256: Digest of the model given out; None until the run is finished.
        public_key: Of the signer, 32 bytes, hex.
        signature: Over all of the above, hex.
    """

    state: State
    entries: int
    head: str
    files: dict[str, str]
    weights_sha256: str | None
    public_key: str
    signature: str = field(default="")

    @property
    def fingerprint(self) -> str:
        """What people compare: the SHA-256 of the public key, hex."""
        return fingerprint(bytes.fromhex(self.public_key))

    def signed(self, identity: Identity) -> Statement:
        """Return the statement with its signature."""
        return replace(self, signature=identity.sign(self._signed_bytes()).hex())

    def text(self) -> str:
        """Return the seal's file; there is one way to write it."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    def is_genuine(self) -> bool:
        """Return whether the holder of the public key's private half signed this statement."""
        public, signature = bytes.fromhex(self.public_key), bytes.fromhex(self.signature)
        # Capital letters would be a second way to write the same signature.
        canonical = signature.hex() == self.signature
        return canonical and signed_by(public, signature, self._signed_bytes())

    def _signed_bytes(self) -> bytes:
        return _CONTEXT + json.dumps(asdict(replace(self, signature="")), sort_keys=True).encode()


def read_seal(folder: Path) -> Statement:
    """Read a folder's seal and check its signature against the public key in it.

    Raises:
        FedfuseError: There is no seal, or a byte of it is not what was written.
    """
    path = folder / SEAL
    try:
        text = path.read_bytes()
    except OSError:
        raise FedfuseError(f"not chained: {path} is missing") from None
    try:
        statement = Statement(**json.loads(text))
        genuine = statement.text().encode() == text and statement.is_genuine()
    except (ValueError, TypeError, AttributeError):
        genuine = False
    if not genuine or statement.state not in get_args(State):
        raise FedfuseError(f"{path} was altered: its signature does not fit it")
    return statement


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class LedgerSeal:
    """The writer of one run's ledger and of its seal; `config` is the settings' SHA-256, hex."""

    def __init__(
        self, folder: Path, identity: Identity, config: str, links: tuple[Link, ...] = ()
    ) -> None:
        self._folder, self._identity, self._links = folder, identity, links
        self._config = config
        self._chain = links[-1].chain if links else Chain()

    @classmethod
    def begin(cls, folder: Path, key_file: str | None, config: str) -> LedgerSeal:
        """Seal a fresh run before anything else of it is written.

        Without a private key of the user's the run makes one of its own; `config` is a text.

        Raises:
            InputError: The user's key can't be read.
        """
        identity = _own(key_file) or make_private(folder / KEY)
        seal = cls(folder, identity, hashlib.sha256(config.encode()).hexdigest())
        seal._sign_running()
        return seal

    @classmethod
    def reopen(cls, folder: Path, key_file: str | None) -> LedgerSeal:
        """Open the ledger of an interrupted run, or of one that is finished and is scored again.

        A last line that a crash cut off is removed. A finished run's key is gone, so such a run
        goes on under a new one.

        Raises:
            InputError: The user's key can't be read, or the folder is not as the run left it.
        """
        links = _checked(folder)
        path = folder / KEY
        kept = read_private(path, str(path)) if path.is_file() else None
        identity = _own(key_file) or kept or make_private(path)
        return cls(folder, identity, sha256_of(folder / _CONFIG), links)

    def rewind(self, round: int) -> None:
        """Sign the entries up to a round; the ledger may be cut to these afterwards."""
        kept = [link for link in self._links if json.loads(link.line)["round"] <= round]
        self._links = tuple(kept)
        self._chain = kept[-1].chain if kept else Chain()
        self._sign_running()

    def append(self, events: Sequence[PrivacyEvent]) -> None:
        """Append events to the ledger on the disk, and sign its new end."""
        if events:
            self._chain = append_events(self._folder / LEDGER, events, self._chain)
            self._sign_running()

    def finish(self, state: State, weights_sha256: str | None = None) -> str:
        """Sign the whole folder, and forget the run's own key.

        Returns:
            The fingerprint of the public key.
        """
        paths = {name: self._folder / name for name in FILES}
        digests = {name: sha256_of(path) for name, path in paths.items() if path.is_file()}
        statement = self._write(state, weights_sha256, digests)
        (self._folder / KEY).unlink(missing_ok=True)
        return statement.fingerprint

    def _sign_running(self) -> None:
        self._write("running", None, {_CONFIG: self._config})

    def _write(self, state: State, weights: str | None, files: dict[str, str]) -> Statement:
        public = self._identity.public.hex()
        end = self._chain
        statement = Statement(state, end.entries, end.head, files, weights, public)
        statement = statement.signed(self._identity)
        write_text(self._folder / SEAL, statement.text())
        return statement


def _own(key_file: str | None) -> Identity | None:
    return read_private(Path(key_file), "execution.signing_key") if key_file else None


def _checked(folder: Path) -> tuple[Link, ...]:
    """Return the entries of a folder that is as an interrupted run left it."""
    path = folder / LEDGER
    try:
        statement = read_seal(folder)
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        links = tuple(follow(whole))
        check_end(statement, links, exact=False)
        if sha256_of(folder / _CONFIG) != statement.files[_CONFIG]:
            raise FedfuseError(f"{_CONFIG} is not the one that the run began with")
    except (OSError, KeyError, FedfuseError) as error:
        remedy = f"{error}; the run can't be continued, start it again"
        raise InputError("--resume", folder, remedy) from None
    if whole != data:
        write_atomic(path, lambda file: file.write(whole))
    return links


def check_end(statement: Statement, links: tuple[Link, ...], *, exact: bool = True) -> None:
    """Check that a ledger ends where its seal says, or later if not `exact`, as after a crash.

    Raises:
        FedfuseError: It does not.
    """
    sealed, found = statement.entries, len(links)
    if found < sealed:
        raise FedfuseError(
            f"entry {found + 1} and those after it are missing: {sealed} were sealed"
        )
    head = links[sealed - 1].chain.head if sealed else Chain().head
    if head != statement.head:
        raise FedfuseError(f"entry {sealed} or one before it was rewritten, and chained anew")
    if exact and found > sealed:
        raise FedfuseError(f"entry {sealed + 1} and those after it are not covered by the seal")
