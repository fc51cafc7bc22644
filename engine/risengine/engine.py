"""The engine: the only module that knows the whole path from image and expression to mask."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from risengine.backends.devices import choose_device, open_session
from risengine.backends.session import Session
from risengine.bundle import Bundle, open_bundle
from risengine.caller_masks import MasksLike, read_masks
from risengine.config import RuntimeConfig, StrategyName, check_strategy
from risengine.errors import InputError
from risengine.generator.found import Found
from risengine.generator.prompts import read_prompts
from risengine.generator.proposals import Progress, find_proposals, prompted_proposals
from risengine.generator.sam import SamImage
from risengine.images import ImageLike, load_image
from risengine.language.phrase import load_language_model
from risengine.manifest import Manifest, Role
from risengine.overrides import apply_overrides
from risengine.proposal_features import encode_proposals
from risengine.question import Question
from risengine.scoring.confidence import calibration_of
from risengine.scoring.strategies import Evidence, texts_of
from risengine.text import TextEncoder, parse_expression
from risengine.types import EncodedImage, Proposals, Segmentation

__all__ = ["Engine", "load"]

Askable: TypeAlias = "ImageLike | EncodedImage"


def load(
    bundle: str | os.PathLike[str] = "tabletop", config: RuntimeConfig | None = None, **overrides: object
) -> Engine:
    """Loads a bundle and makes it ready to segment.

    ``load("tabletop", global_weight=0.85, points_per_side=8)`` uses those values in place of the bundle's.

    Args:
        bundle: Name of an embedded bundle, or path of a bundle directory.
        config: Device and threads; what the bundle was built for, and automatic, when left out.
        overrides: ``global_weight`` (v), ``sentence_weight`` (r) and the fields of
            :class:`~risengine.method.ProposalSettings`. Everything else is fixed when the bundle is built.

    Raises:
        BundleError: The bundle is missing, damaged, of another format version, or built for another device.
        BackendError: The device, its library or spaCy's English model is missing, or a graph cannot be loaded.
        InputError: An override is unknown, fixed when the bundle is built, or outside its range.
    """
    return Engine(open_bundle(bundle), config or RuntimeConfig(), overrides)


class Engine:
    """Zero-shot referring image segmentation from one bundle. Safe to use from several threads.

    ``segment`` answers one expression; ``encode_image`` does what depends on the image alone, so that many expressions
    can be asked of one image.

    Attributes:
        sessions: The loaded graphs by role, for measurements and tests.
        method: The method in force: the bundle's, with the weights that were overridden.
        proposal_settings: The proposal settings in force.
        strategy: How masks are scored, where a question does not say.
    """

    def __init__(self, bundle: Bundle, config: RuntimeConfig, overrides: Mapping[str, object] | None = None) -> None:
        """Loads every graph of an opened bundle; see :func:`load`."""
        device = choose_device(bundle, config)
        self.strategy: StrategyName = config.strategy
        self.method, self.proposal_settings = apply_overrides(bundle.manifest, overrides or {})
        load_language_model()
        self._bundle = bundle
        self.sessions: dict[Role, Session] = {
            role: open_session(bundle, role, device, config) for role in bundle.manifest.roles_on(device)
        }
        self._text = TextEncoder(
            self.sessions["text_encoder"], bundle.tokenizer_path, bundle.manifest.text.context_length
        )

    @property
    def manifest(self) -> Manifest:
        """The facts of the bundle in use; what is in force are :attr:`method` and :attr:`proposal_settings`."""
        return self._bundle.manifest

    @property
    def bundle_id(self) -> str:
        """SHA-256 of the bundle's manifest in hex."""
        return self._bundle.id

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers that really run the graphs."""
        return tuple(dict.fromkeys(name for session in self.sessions.values() for name in session.providers))

    def proposals(
        self,
        image: ImageLike,
        progress: Progress | None = None,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
    ) -> Proposals:
        """Proposes masks for the objects of an image, with the bundle's SAM.

        Without prompts, SAM's automatic generator runs with the settings in force. With prompts, each gets SAM's three
        masks, unfiltered as from ``SamPredictor.predict``, one of which may be empty: those of prompt p are rows
        ``3 * p`` to ``3 * p + 2``, best predicted quality first, so that ``[::3]`` is the best of every prompt.

        Args:
            image: Path, PIL image or (H, W, 3) uint8 RGB array.
            progress: Called with (prompts done, prompts in all).
            points: (P, 2) xy in pixels, each a prompt by itself on its object, or (P, K, 2), prompts of K points.
            labels: (P, K): 1 for points on the object, 0 for points off it; 1 when left out.
            boxes: (P, 4) half-open xyxy in pixels, each a prompt by itself, or with the points of the same row.

        Raises:
            InputError: The image or the prompts cannot be used.
        """
        pixels = load_image(image)
        if points is None and labels is None and boxes is None:
            return self._propose(pixels, progress).proposals
        prompts = read_prompts(points, labels, boxes, (pixels.shape[0], pixels.shape[1]))
        sam = SamImage.encode(self.sessions, pixels, self.manifest.sam_image_size_px)
        return prompted_proposals(sam, prompts, self.proposal_settings, progress)

    def encode_image(
        self,
        image: ImageLike,
        masks: MasksLike | None = None,
        progress: Progress | None = None,
    ) -> EncodedImage:
        """Computes proposals and their features: all that an expression does not change.

        Args:
            image: Path, PIL image or (H, W, 3) uint8 RGB array.
            masks: Used in place of SAM's proposals: (N, H, W) bool, the result of :meth:`proposals`, or a list in which
                each mask is (H, W) bool, COCO run lengths, or a list of polygons, which cover the pixels whose centres
                lie inside.
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
                found = self._propose(pixels, progress)
            else:
                found = Found.on_host(read_masks(masks, (pixels.shape[0], pixels.shape[1])))
        with _timed(timings, "proposal_features"):
            features = self._describe(pixels, found)
        return EncodedImage(pixels, found.proposals, features, self.bundle_id, timings, self.method.global_weight)

    def check_text(self, text: str) -> None:
        """Checks that an expression can be asked, without an image.

        Raises:
            InputError: The text is blank, too long, or holds control characters.
        """
        self._text.tokenize(parse_expression(text, self.method).sentence)

    @overload
    def segment(self, image: Askable, text: str, strategy: StrategyName | None = None) -> Segmentation: ...

    @overload
    def segment(
        self, image: Askable, text: str, strategy: StrategyName | None = None, *, reject_below: float
    ) -> Segmentation | None: ...

    def segment(
        self, image: Askable, text: str, strategy: StrategyName | None = None, *, reject_below: float | None = None
    ) -> Segmentation | None:
        """Returns the mask that an expression refers to.

        Args:
            image: Anything :meth:`encode_image` takes, or its result.
            text: English referring expression.
            strategy: As for :meth:`rank`.
            reject_below: Confidence in [0, 1] below which the answer is None: nothing in the image matches.

        Raises:
            InputError: The image, the text or the strategy cannot be used, the image was encoded by another bundle or
                under another ``global_weight``, a confidence is asked for where there is none (another strategy than
                ``spatial``, a bundle without calibration), or nothing is proposed, so that there is no mask to choose
                (:meth:`rank` returns an empty list instead, and with ``reject_below`` the answer is None).
        """
        if reject_below is not None:
            self._check_rejection(reject_below, strategy or self.strategy)
        best = self.rank(image, text, 1, strategy)
        if not best and reject_below is not None:
            return None
        if not best:
            settings = self.proposal_settings
            raise InputError(
                f"no object was found in the image: 0 masks at pred_iou_thresh {settings.pred_iou_thresh} and "
                f"stability_score_thresh {settings.stability_score_thresh}. Load the engine with lower ones, or pass "
                "masks of your own to encode_image."
            )
        why = best[0].explanation
        sure = why.confidence if why is not None else None
        return None if reject_below is not None and sure is not None and sure < reject_below else best[0]

    def rank(
        self, image: Askable, text: str, top_k: int = 5, strategy: StrategyName | None = None
    ) -> list[Segmentation]:
        """Returns the masks closest to an expression, best first.

        Args:
            image: Anything :meth:`encode_image` takes, or its result.
            text: English referring expression.
            top_k: Most masks to return.
            strategy: ``spatial``, ``global_local``, ``hybridgl`` or ``contrast``; the engine's when left out.

        Returns:
            At most ``top_k`` answers; an empty list where nothing is proposed.

        Raises:
            InputError: The image, the text or the strategy cannot be used, ``top_k`` < 1, or the image was
                encoded by another bundle or under another ``global_weight``.
        """
        if top_k < 1:
            raise InputError(f"top_k = {top_k}; expected at least 1.")
        name = strategy or self.strategy
        check_strategy(name)
        own: dict[str, float] = {}
        with _timed(own, "phrase"):  # a bad text is refused before the image is worked on
            expression = parse_expression(text, self.method)
        with _timed(own, "text_features"):
            strings = texts_of(expression, name)
            texts = dict(zip(strings, self._text.encode(strings), strict=True))
        encoded = image if isinstance(image, EncodedImage) else self.encode_image(image)
        if encoded.bundle_id != self.bundle_id:
            raise InputError(
                f"image was encoded by bundle {encoded.bundle_id[:12]}, this engine runs {self.bundle_id[:12]}. "
                "Encode it again with this engine."
            )
        if encoded.global_weight != self.method.global_weight:
            raise InputError(
                f"image was encoded with global_weight {encoded.global_weight}, this engine mixes with "
                f"{self.method.global_weight}. Encode it again with this engine; "
                "encode_image(image, masks=encoded.proposals) keeps its proposals."
            )
        if not len(encoded.proposals):
            return []
        with _timed(own, "score"):
            evidence = Evidence(encoded, texts, expression, self.method)
            question = Question(evidence, name, calibration_of(self.bundle_id))
            scores = question.score()
        with _timed(own, "mask_out"):
            answers = question.best(scores, top_k)
        timings = {**encoded.timings_ms, **own}
        return [replace(answer, timings_ms=dict(timings)) for answer in answers]

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

    def _check_rejection(self, threshold: float, strategy: StrategyName) -> None:
        if not 0 <= threshold <= 1:
            raise InputError(f"reject_below = {threshold}; expected a confidence in [0, 1].")
        if strategy != "spatial" or calibration_of(self.bundle_id) is None:
            raise InputError(
                f"reject_below needs a calibrated confidence, which strategy {strategy!r} of bundle "
                f"{self.manifest.name} ({self.bundle_id[:12]}) has not; expected spatial and a calibrated bundle. "
                "Leave reject_below out and look at the scores."
            )

    def _propose(self, pixels: NDArray[np.uint8], progress: Progress | None) -> Found:
        side_px = self.manifest.sam_image_size_px
        return find_proposals(self.sessions, pixels, self.proposal_settings, side_px, progress)

    def _describe(self, pixels: NDArray[np.uint8], found: Found) -> NDArray[np.float32]:
        role: Role = "proposal_encoder"
        return encode_proposals(self.sessions[role], self.manifest.graphs[role], self.method, pixels, found)


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[stage] = 1e3 * (time.perf_counter() - start)
