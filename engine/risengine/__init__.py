"""Zero-shot referring image segmentation for edge devices: image + expression -> mask.

import risengine

engine = risengine.load("tabletop")
seg = engine.segment("table.jpg", "the red mug left of the blue box")
seg.save_overlay("out.png")
"""

from risengine.config import RuntimeConfig
from risengine.engine import Engine, load
from risengine.errors import BackendError, BundleError, InputError, RisError
from risengine.manifest import Manifest
from risengine.types import EncodedImage, Proposals, Segmentation

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "BundleError",
    "EncodedImage",
    "Engine",
    "InputError",
    "Manifest",
    "Proposals",
    "RisError",
    "RuntimeConfig",
    "Segmentation",
    "load",
]
