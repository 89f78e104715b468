"""The CrossModalNet: an encoder per modality, a fusion, a head per domain, each a named block.

Importing this package does not import torch: a network's shape (`spec`) is known without it.
"""
