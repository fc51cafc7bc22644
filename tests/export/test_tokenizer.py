"""The tokenizer file against open_clip's own tokenizer."""

from __future__ import annotations

import random
import string
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import open_clip
import pytest
from open_clip.tokenizer import SimpleTokenizer
from tokenizers import Tokenizer
from torch import nn

from risengine.errors import InputError
from risexport.tokenizer import clip_tokenizer_json, write_tokenizer

START, END = 49406, 49407


@lru_cache
def _tokenizers() -> tuple[Tokenizer, SimpleTokenizer]:
    return Tokenizer.from_str(clip_tokenizer_json()), SimpleTokenizer()


def _assert_same_ids(text: str) -> None:
    ours, theirs = _tokenizers()
    assert ours.encode(text).ids == [START, *theirs.encode(text), END], repr(text)


def _random_texts(letters: Callable[[random.Random], str], count: int) -> list[str]:
    rng = random.Random(count)
    return ["".join(letters(rng) for _ in range(rng.randrange(30))) for _ in range(count)]


ENGLISH = string.ascii_letters + string.digits + "    '\u2019\u201c\u201d\"-.,!?;:()/_<>\t\n\x07\xa0é"
WORDS = "the a man's MUG mugs blue-green don't they're i'll left-most 42 3rd café naïve o'clock _x_ ... ?! ΟΔΟΣ straße"
# Unicode 3.2, of which every Python and every tokenizer knows the same; newer letters depend on their versions.
UNICODE = [chr(code) for code in range(0x20, 0x10000) if unicodedata.ucd_3_2_0.category(chr(code))[0] in "LNPSZM"]
EMOJI = ["😀", "👍🏽", "🚀", "é"]


def test_english() -> None:
    for text in _random_texts(lambda rng: rng.choice(ENGLISH), 3000):
        _assert_same_ids(text)
    for text in _random_texts(lambda rng: rng.choice(WORDS.split()) + rng.choice(["", " ", "  ", ", "]), 1000):
        _assert_same_ids(text)


def test_unicode_after_cleaning() -> None:
    clean = _tokenizers()[1].clean_fn
    for text in _random_texts(lambda rng: rng.choice(UNICODE if rng.random() < 0.9 else EMOJI), 3000):
        _assert_same_ids(clean(text))


@pytest.mark.parametrize(
    "text", ["", " ", "\u200b", "ﬁnd the ﬂoor", "İstanbul", "'ſ", "a\u0301", "ᾳ\u0345", "x" * 500, "the " * 300]
)
def test_corner_cases(text: str) -> None:
    _assert_same_ids(text)


@pytest.mark.parametrize("text", ["ｆｕｌｌ width", "salt &amp; pepper", "cafÃ©"])
def test_documented_differences(text: str) -> None:
    ours, theirs = _tokenizers()
    assert ours.encode(text).ids != [START, *theirs.encode(text), END]
    _assert_same_ids(theirs.clean_fn(text))


def test_special_tokens_cannot_be_typed() -> None:
    ours, theirs = _tokenizers()
    assert END in theirs.encode("mug <end_of_text> bowl")
    ids = ours.encode("mug <end_of_text> bowl").ids
    assert ids.count(END) == 1
    assert ids[-1] == END


def test_write_tokenizer(tmp_path: Path) -> None:
    vision = {"layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16}
    text = {"context_length": 9, "width": 8, "heads": 2, "layers": 1}
    path = tmp_path / "tokenizer.json"
    write_tokenizer(open_clip.CLIP(8, vision, text), path)
    assert Tokenizer.from_file(str(path)).encode("a red mug").ids == [START, 320, 736, 9722, END]
    assert path.stat().st_size < 2_000_000
    with pytest.raises(InputError, match="49408"):
        write_tokenizer(open_clip.CLIP(8, vision, {**text, "vocab_size": 60}), path)
    with pytest.raises(InputError, match="49408"):
        write_tokenizer(nn.Identity(), path)
