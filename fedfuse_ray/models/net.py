"""CrossModalNet: what one owner of some modalities of one domain trains.

The parameters lie in one flat vector, block after block, so that the optimizer, the strategy's
rules and the wire see vectors and not lists of small tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.models.fusion import Weighted
from fedfuse_ray.models.modules import build_block
from fedfuse_ray.models.paths import Inputs, Owner, path_of
from fedfuse_ray.models.spec import ModelSpec, encoder_block


class CrossModalNet(nn.Module):
    """The network of an owner of `modalities` in `domain`.

    Args:
        spec: The federation's network.
        domain: The owner's domain.
        modalities: The modalities that it owns, in its domain's order.
        tier: The tier that its encoders are of; "" for the default ones.
    """

    def __init__(
        self, spec: ModelSpec, domain: str, modalities: Sequence[str], tier: str = ""
    ) -> None:
        super().__init__()
        self.spec, self.domain, self.modalities = spec, domain, tuple(modalities)
        self.kind = spec.config.fusion
        self.names = spec.block_names(domain, self.modalities, tier)
        self.encoder_names = {m: encoder_block(m, tier) for m in self.modalities}
        self.blocks = nn.ModuleDict({name: build_block(spec, name) for name in self.names})
        self._path = path_of(Owner(spec, domain, self.modalities, tier, self.blocks))
        self._flatten()

    def embed(self, inputs: Inputs) -> torch.Tensor:
        """Compute what does not depend on what is shown: embeddings [B, M, D], or maps."""
        return self._path.embed(inputs)

    def classify(self, embedded: torch.Tensor, mask: torch.Tensor) -> Weighted:
        """Classify what `embed` returned, shown only the modalities in the mask [B, M].

        Returns:
            Log-probabilities up to a constant [B, K], and the modalities' weights [B, M].
        """
        return self._path.classify(embedded, mask)

    def set_blocks(self, blocks: Blocks) -> None:
        """Overwrite the weights."""
        with torch.no_grad():
            for name, (start, stop) in self.offsets.items():
                self.flat[start:stop].copy_(torch.tensor(blocks[name]))

    def get_blocks(self) -> Blocks:
        """Return a copy of the weights."""
        return self.split(self.flat)

    def split(self, vector: torch.Tensor) -> Blocks:
        """Cut a vector of this network's length [P] into blocks, copied."""
        whole = vector.detach().cpu().numpy()
        return {name: whole[start:stop].copy() for name, (start, stop) in self.offsets.items()}

    def join(self, blocks: Blocks) -> torch.Tensor:
        """Return blocks as one vector [P], on the network's device."""
        joined = torch.cat([torch.tensor(blocks[name]) for name in self.names])
        return joined.to(self.flat.device)

    def on(self, device: torch.device) -> CrossModalNet:
        """Move to a device; the flat vector stays the parameters' storage."""
        if device != self.flat.device:
            self.to(device)
            self._flatten()
        return self

    def _flatten(self) -> None:
        parameters = {name: list(self.blocks[name].parameters()) for name in self.names}
        self.flat = torch.cat([p.detach().reshape(-1) for ps in parameters.values() for p in ps])
        self.gradient = torch.zeros_like(self.flat)
        self.offsets: dict[str, tuple[int, int]] = {}
        end = 0
        for name, group in parameters.items():
            first = end
            for p in group:
                start, end = end, end + p.numel()
                p.data = self.flat[start:end].view(p.shape)
                p.grad = self.gradient[start:end].view(p.shape)
            self.offsets[name] = (first, end)
