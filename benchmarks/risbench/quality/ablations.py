"""Variants of the method that leave a part of it out: what each part is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from risbench.data.refer import Ref
from risbench.quality.answers import Answer, ImageTruth, answer_image
from risengine import RuntimeConfig, load
from risengine.engine import Engine
from risengine.types import EncodedImage

__all__ = ["ABLATIONS", "answer_variants", "opened_variants"]

ABLATIONS: Mapping[str, dict[str, float]] = {
    "global": {"global_weight": 1.0},
    "local": {"global_weight": 0.0},
    "sentence": {"sentence_weight": 1.0},
    "phrase": {"sentence_weight": 0.0},
}
"""What is left alone of the visual features, or of the text's, by the name of the variant: weights of the method."""


@contextmanager
def opened_variants(bundle: str, names: Sequence[str]) -> Iterator[dict[str, Engine]]:
    """Loads a bundle once for each variant, all with the paper's score; yields the engines by name."""
    runtime = RuntimeConfig(strategy="global_local")
    with ExitStack() as opened:
        yield {name: opened.enter_context(load(bundle, runtime, **ABLATIONS[name])) for name in names}


def answer_variants(
    variants: Mapping[str, Engine], encoded: EncodedImage, truth: ImageTruth, refs: Sequence[Ref]
) -> dict[str, list[Answer]]:
    """Asks every variant the same expressions, of the same proposals, as :func:`answer_image` does.

    Args:
        variants: Engines by name.
        encoded: The image with the proposals that all of them choose among.
        truth: Its objects.
        refs: The expressions.
    """
    answers = {}
    for name, variant in variants.items():
        described = variant.encode_image(encoded.image, masks=encoded.proposals)
        answers[name] = answer_image(variant, described, truth, refs)
    return answers
