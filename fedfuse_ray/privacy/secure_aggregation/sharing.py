"""Who holds which share of an institution's secrets, and the shares that nobody has to send.

Of a sender's n shares only n - (t - 1) are computed and sent. The other t - 1 are derived by both
sides from the secret that they agreed on, and the polynomial is laid through them. Source of the
idea: Cramer, Damgard and Ishai, "Share conversion, pseudorandom secret-sharing and applications to
secure computation", TCC 2005, which derives whole sharings from keys held in advance; here the
dealer knows the secret, so only as many shares can be free as a polynomial of degree t - 1 has
room for.

Formal guarantees:
    To those who know neither private key of a pair, what it derives is (HKDF as a random oracle,
    CDH on Curve25519) uniform and independent for each round, direction, and secret. Hence
    the shares are distributed as Shamir's (`shamir.complete`), and t - 1 of them say nothing. A
    recipient that colludes with the server knows its derived share, and might even choose it by its
    choice of key; it would have been told that share anyway, and the bound holds for chosen ones.

    An honest recipient can't tell by a derived share that the sender really sent shares to others:
    a malicious server may name one among the partners who never did, or show two clients two
    rosters. That breaks the sum, as a server can break any, and gains nothing. What a client
    reveals of that sender is still one of two kinds of share, the mask key's or the seeds', and it
    is still t of a kind that must come together. Whoever is counted among the survivors has signed
    for it.
"""

from __future__ import annotations

from collections.abc import Collection

from fedfuse_ray.privacy.secure_aggregation.keys import derive_key
from fedfuse_ray.privacy.secure_aggregation.messages import Shares
from fedfuse_ray.privacy.secure_aggregation.shamir import UNIFORM_BYTES, uniform_share
from fedfuse_ray.privacy.secure_aggregation.terms import RoundTerms


def derivers(terms: RoundTerms, roster: Collection[str], sender: str) -> tuple[str, ...]:
    """Return the members of the roster who derive their shares of the sender's secrets.

    They are the threshold - 1 that follow the sender in the federation's order, the first after the
    last: each member derives shares of as many others, and every one can tell by the roster whose.
    The roster has at least a threshold of institutions, the sender among them.
    """
    ring = [name for name in terms.names if name in roster]
    start = ring.index(sender) + 1
    return tuple((ring[start:] + ring)[: terms.threshold - 1])


def derived_shares(agreed: bytes, terms: RoundTerms, sender: str, recipient: str) -> Shares:
    """Return a recipient's shares of a sender's secrets, the same on both sides.

    What the two agreed on is the secret to encrypt shares; for this pair and direction it encrypts
    none.
    """

    def share(label: str, *names: str) -> bytes:
        labels = label, sender, recipient, *names
        return uniform_share(derive_key(agreed, terms.digest, *labels, length=UNIFORM_BYTES))

    return Shares(
        mask_key=share("share of mask key"),
        seeds={block: share("share of seed", block) for block in terms.owned_by(sender)},
    )
