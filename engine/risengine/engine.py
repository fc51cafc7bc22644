"""The engine: the only module that knows the whole path from image and expression to mask."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from risengine.bundle import Bundle, open_bundle
from risengine.config import RuntimeConfig
from risengine.errors import BundleError, InputError
from risengine.images import ImageLike, load_image
from risengine.manifest import Manifest, Role
from risengine.phrase import load_language_model
from risengine.proposals import Progress, generate_proposals, proposals_from_masks
from risengine.score import similarity
from risengine.session import OnnxSession, Session
from risengine.text import TextEncoder, parse_expression
from risengine.types import EncodedImage, Proposals, Segmentation

__all__ = ["Engine", "load"]

Askable: TypeAlias = "ImageLike | EncodedImage"

_MASKED_PIXELS = 1 << 25  # mask pixels described in one call; the graph holds three floats for each: about 400 MB


def load(bundle: str | os.PathLike[str] = "tabletop", config: RuntimeConfig | None = None) -> Engine:
    """Loads a bundle and makes it ready to segment.

    Args:
        bundle: Name of an embedded bundle, or path of a bundle directory.
        config: Device and threads; the CPU with automatic threads when left out.

    Raises:
        BundleError: The bundle is missing, damaged, of another format version, or built for another device.
        BackendError: ONNX Runtime or spaCy's English model is missing, or a graph cannot be loaded.
    """
    return Engine(open_bundle(bundle), config or RuntimeConfig())


class Engine:
    """Zero-shot referring image segmentation from one bundle. Safe to use from several threads.

    ``segment`` answers one expression; ``encode_image`` does what depends on the image alone, so that many expressions
    can be asked of one image.

    Attributes:
        sessions: The loaded graphs by role, for measurements and tests.
    """

    def __init__(self, bundle: Bundle, config: RuntimeConfig) -> None:
        """Loads every graph of an opened bundle; see :func:`load`."""
        if bundle.manifest.target != config.device:
            raise BundleError(
                f"bundle {bundle.path} is built for target {bundle.manifest.target!r}; this engine runs on "
                f"{config.device!r}. Rebuild it with --target {config.device}."
            )
        load_language_model()
        self._bundle = bundle
        self.sessions: dict[Role, Session] = {
            role: OnnxSession(bundle.graph_path(role), bundle.manifest.graphs[role], config) for role in get_args(Role)
        }
        self._text = TextEncoder(
            self.sessions["text_encoder"], bundle.tokenizer_path, bundle.manifest.text.context_length
        )

    @property
    def manifest(self) -> Manifest:
        """The facts of the bundle in use."""
        return self._bundle.manifest

    @property
    def bundle_id(self) -> str:
        """SHA-256 of the bundle's manifest in hex."""
        return self._bundle.id

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers that really run the graphs."""
        return tuple(dict.fromkeys(name for session in self.sessions.values() for name in session.providers))

    def proposals(self, image: ImageLike, progress: Progress | None = None) -> Proposals:
        """Proposes masks for the objects of an image, with the bundle's SAM and settings.

        Args:
            image: Path, PIL image or (H, W, 3) uint8 RGB array.
            progress: Called with (prompts done, prompts in all).

        Raises:
            InputError: The image cannot be used.
        """
        return self._propose(load_image(image), progress)

    def encode_image(
        self,
        image: ImageLike,
        masks: NDArray[np.bool_] | None = None,
        progress: Progress | None = None,
    ) -> EncodedImage:
        """Computes proposals and their features: all that an expression does not change.

        Args:
            image: Path, PIL image or (H, W, 3) uint8 RGB array.
            masks: (N, H, W) bool, used in place of SAM's proposals.
            progress: Called with (prompts done, prompts in all) while proposals are made.

        Returns:
            The encoded image; with zero proposals where SAM finds nothing.

        Raises:
            InputError: The image or the masks cannot be used.
        """
        timings: dict[str, float] = {}
        with _timed(timings, "load_image"):
            pixels = load_image(image)
            pixels.flags.writeable = False  # answers share it
        with _timed(timings, "proposals"):
            if masks is None:
                proposals = self._propose(pixels, progress)
            else:
                proposals = proposals_from_masks(masks, (pixels.shape[0], pixels.shape[1]))
        with _timed(timings, "proposal_features"):
            features = self._describe(pixels, proposals.masks)
        return EncodedImage(pixels, proposals, features, self.bundle_id, timings)

    def check_text(self, text: str) -> None:
        """Checks that an expression can be asked, without an image.

        Raises:
            InputError: The text is blank, too long, or holds control characters.
        """
        self._text.tokenize(parse_expression(text, self.manifest.method).sentence)

    def segment(self, image: Askable, text: str) -> Segmentation:
        """Returns the mask that an expression refers to.

        Args:
            image: Anything :meth:`encode_image` takes, or its result.
            text: English referring expression.

        Raises:
            InputError: The image or the text cannot be used, the image was encoded by another bundle, or nothing is
                proposed in it, so that there is no mask to choose (:meth:`rank` returns an empty list instead).
        """
        best = self.rank(image, text, top_k=1)
        if not best:
            settings = self.manifest.proposals
            raise InputError(
                f"no object was found in the image: 0 masks at pred_iou_thresh {settings.pred_iou_thresh} and "
                f"stability_score_thresh {settings.stability_score_thresh}. Pass masks of your own to encode_image."
            )
        return best[0]

    def rank(self, image: Askable, text: str, top_k: int = 5) -> list[Segmentation]:
        """Returns the masks closest to an expression, best first.

        Args:
            image: Anything :meth:`encode_image` takes, or its result.
            text: English referring expression.
            top_k: Most masks to return.

        Returns:
            At most ``top_k`` answers; an empty list where nothing is proposed.

        Raises:
            InputError: The image or the text cannot be used, ``top_k`` < 1, or the image was encoded by another bundle.
        """
        if top_k < 1:
            raise InputError(f"top_k = {top_k}; expected at least 1.")
        own: dict[str, float] = {}
        with _timed(own, "phrase"):  # a bad text is refused before the image is worked on
            expression = parse_expression(text, self.manifest.method)
        with _timed(own, "text_features"):
            text_feature = self._text.encode_expression(expression, self.manifest.method.sentence_weight)
        encoded = image if isinstance(image, EncodedImage) else self.encode_image(image)
        if encoded.bundle_id != self.bundle_id:
            raise InputError(
                f"image was encoded by bundle {encoded.bundle_id[:12]}, this engine runs {self.bundle_id[:12]}. "
                "Encode it again with this engine."
            )
        with _timed(own, "score"):
            scores = similarity(encoded.features, text_feature, self.manifest.method.similarity)
            order = np.argsort(-scores, kind="stable")[:top_k]
        timings = {**encoded.timings_ms, **own}
        return [
            Segmentation(
                mask=encoded.proposals.masks[i].copy(),
                box=encoded.proposals.boxes[i].copy(),
                score=float(scores[i]),
                index=int(i),
                text=expression.text,
                phrase=expression.phrase,
                timings_ms=dict(timings),
                image=encoded.image,
            )
            for i in order
        ]

    def close(self) -> None:
        """Frees the graphs; the engine cannot be used afterwards."""
        for session in self.sessions.values():
            session.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _propose(self, pixels: NDArray[np.uint8], progress: Progress | None) -> Proposals:
        manifest = self.manifest
        return generate_proposals(self.sessions, pixels, manifest.proposals, manifest.sam_image_size_px, progress)

    def _describe(self, pixels: NDArray[np.uint8], masks: NDArray[np.bool_]) -> NDArray[np.float32]:
        session = self.sessions["proposal_encoder"]
        if not len(masks):
            (features,) = (tensor for tensor in session.outputs if tensor.name == "features")
            return np.zeros((0, int(features.shape[-1])), np.float32)
        weight = np.array(self.manifest.method.global_weight, np.float32)
        step = max(1, _MASKED_PIXELS // (pixels.shape[0] * pixels.shape[1]))
        parts = [
            session.run({"image": pixels, "masks": masks[start : start + step], "global_weight": weight})["features"]
            for start in range(0, len(masks), step)
        ]
        return np.concatenate(parts)


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[stage] = 1e3 * (time.perf_counter() - start)
