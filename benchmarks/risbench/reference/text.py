"""Expression to text feature: spelling, target noun phrase, CLIP's text encoder, mix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from risengine.errors import InputError
from risengine.language.phrase import load_language_model
from risengine.method import Method

__all__ = ["ParsedText", "Tokenizer", "encode_expression", "encode_texts", "parse_text"]


class Tokenizer(Protocol):
    """open_clip's tokenizer interface, as far as it is used here."""

    context_length: int
    encode: Callable[[str], list[int]]

    def __call__(self, texts: list[str]) -> Tensor:
        """Returns (T, context_length) int64 tokens."""
        ...


@dataclass(frozen=True)
class ParsedText:
    """The two strings that CLIP reads for an expression."""

    sentence: str
    phrase: str


def parse_text(text: str, method: Method) -> ParsedText:
    """Lower-cases and spells an expression as the method does, and finds its target noun phrase.

    The head is the last token that is its own head. The phrase is the noun chunk that holds the head, else the chunk
    that holds the head's first child, else the whole sentence.

    Raises:
        InputError: The text is blank.
        BackendError: spaCy's English model is not installed.
    """
    language = load_language_model()
    sentence = " ".join(text.lower().split())
    if method.tokenisation == "spaced":
        sentence = " ".join(token.text for token in language(sentence) if token.text != " ")
    if not sentence.strip():
        raise InputError("text is blank; expected an expression such as 'the red mug'.")
    document = language(sentence)
    chunks = list(document.noun_chunks)
    head = [token for token in document if token.head == token][-1]
    for token in (head, *list(head.children)[:1]):
        for chunk in chunks:
            if chunk.start <= token.i < chunk.end:
                return ParsedText(sentence, chunk.text)
    return ParsedText(sentence, sentence)


@torch.inference_mode()
def encode_texts(clip: CLIP, tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """Encodes strings with CLIP's text tower.

    Returns:
        (T, E) float32, raw.

    Raises:
        InputError: A text has more tokens than the context holds; open_clip itself would cut it off silently.
    """
    for text in texts:
        count = len(tokenizer.encode(text)) + 2  # start and end
        if count > tokenizer.context_length:
            raise InputError(f"text has {count} CLIP tokens; at most {tokenizer.context_length} fit. Shorten it.")
    features: Tensor = clip.encode_text(tokenizer(texts).to(clip.logit_scale.device))
    return features


@torch.inference_mode()
def encode_expression(clip: CLIP, tokenizer: Tokenizer, parsed: ParsedText, method: Method) -> Tensor:
    """Mixes sentence and phrase: ``r * e(sentence) + (1 - r) * e(phrase)``.

    The features are mixed raw, save where the method compares by dot product (ResNet towers): there each has unit norm.

    Returns:
        (E,) float32.
    """
    features = encode_texts(clip, tokenizer, [parsed.sentence, parsed.phrase])
    if method.similarity == "dot":
        features = F.normalize(features, dim=-1)
    share = method.sentence_weight
    return share * features[0] + (1 - share) * features[1]
