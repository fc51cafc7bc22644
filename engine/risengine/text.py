"""An expression is checked and read, and its strings become text features: tokens, text encoder."""

from __future__ import annotations

import threading
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from risengine.backends.session import Session
from risengine.errors import BundleError, InputError
from risengine.language.expression import Description
from risengine.language.parse import describe
from risengine.language.phrase import noun_phrase, space_tokens
from risengine.method import Method

__all__ = ["MAX_CHARACTERS", "Expression", "TextEncoder", "parse_expression"]

MAX_CHARACTERS = 1000
"""Longest text accepted. CLIP's context ends far earlier; this keeps a parser from chewing on a whole book."""

_CACHED_TEXTS = 4096


@dataclass(frozen=True)
class Expression:
    """A checked expression.

    Attributes:
        text: As the caller wrote it.
        sentence: What the text encoder reads for the whole.
        phrase: The target noun phrase.
        description: The sentence read in full.
    """

    text: str
    sentence: str
    phrase: str
    description: Description


def parse_expression(text: str, method: Method) -> Expression:
    """Checks an expression and finds its target noun phrase.

    Args:
        text: English, at most :data:`MAX_CHARACTERS` characters; runs of white space count as one space.
        method: Says how the sentence is spelled for the text encoder.

    Raises:
        InputError: The text is no string, blank, too long, or contains control characters or lone surrogates.
        BackendError: spaCy or its English model is not installed.
    """
    if not isinstance(text, str):
        raise InputError(f"text is a {type(text).__name__}; expected a str such as 'the red mug'.")
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"text has {len(text)} characters; at most {MAX_CHARACTERS} are accepted. Shorten it.")
    bad = next((c for c in text if unicodedata.category(c) in ("Cc", "Cs") and not c.isspace()), None)
    if bad is not None:
        raise InputError(f"text contains the control character U+{ord(bad):04X}. Remove it.")
    sentence = " ".join(text.lower().split())
    if not sentence:
        raise InputError("text is blank; expected an expression such as 'the red mug'.")
    if method.tokenisation == "spaced":
        sentence = space_tokens(sentence)
    return Expression(text, sentence, noun_phrase(sentence), describe(sentence))


class TextEncoder:
    """The tokenizer and the ``text_encoder`` graph, with the features of recent strings remembered."""

    def __init__(self, session: Session, tokenizer_path: Path, context_length: int) -> None:
        """Loads the tokenizer.

        Args:
            session: The ``text_encoder`` graph.
            tokenizer_path: Tokenizer file in Hugging Face ``tokenizers`` JSON.
            context_length: Tokens of one text, start and end included.

        Raises:
            BundleError: The tokenizer file cannot be read.
        """
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_path))
        except Exception as error:  # the library raises bare Exception
            raise BundleError(f"{tokenizer_path} is no tokenizer ({error}). Rebuild the bundle.") from error
        self._session = session
        self._context_length = context_length
        self._most = session.largest("T")
        self._cache: dict[str, NDArray[np.float32]] = {}
        self._lock = threading.Lock()

    def tokenize(self, text: str) -> NDArray[np.int64]:
        """Returns (context_length,) int64 token ids: start, text, end, zeros.

        Raises:
            InputError: The text has more tokens than the context holds.
        """
        ids = self._tokenizer.encode(text).ids
        if len(ids) > self._context_length:
            raise InputError(
                f"text has {len(ids)} CLIP tokens with start and end; at most {self._context_length} fit. Shorten it."
            )
        tokens = np.zeros(self._context_length, np.int64)
        tokens[: len(ids)] = ids
        return tokens

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Returns (T, E) float32 features of T strings as the graph gives them; new strings run in as few calls as fit.

        Raises:
            InputError: A text has more tokens than the context holds.
        """
        with self._lock:
            known = {text: self._cache[text] for text in texts if text in self._cache}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            tokens = np.stack([self.tokenize(text) for text in new])
            step = self._most or len(new)
            for start in range(0, len(new), step):
                features = self._session.run({"tokens": tokens[start : start + step]})["features"]
                known.update(zip(new[start : start + step], features, strict=True))
            with self._lock:
                if len(self._cache) + len(new) > _CACHED_TEXTS:
                    self._cache.clear()
                self._cache.update((text, known[text]) for text in new)
        return np.stack([known[text] for text in texts])
