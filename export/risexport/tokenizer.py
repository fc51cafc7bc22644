"""CLIP's byte-pair tokenizer as one Hugging Face ``tokenizers`` JSON file, which the runtimes read without open_clip.

Its ids equal ``open_clip.tokenize``'s, without truncation and padding, with two exceptions. open_clip first repairs
text with ``ftfy`` and unescapes HTML; of those repairs the file does what ordinary expressions meet (NFC, straight
quotes, ligatures, control characters), and *not* mojibake, full-width and other compatibility letters, or HTML
(``&amp;``). And where a text spells out ``<start_of_text>`` or ``<end_of_text>``, open_clip takes that for the token,
this file for text, so that an expression cannot end itself.
"""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

from open_clip.tokenizer import bytes_to_unicode, default_bpe
from tokenizers import Tokenizer
from torch import nn

from risengine.errors import InputError

__all__ = ["VOCABULARY_SIZE", "clip_tokenizer_json", "write_tokenizer"]

VOCABULARY_SIZE = 49408
"""Tokens of CLIP; the last two start and end a text."""

_START, _END = "<start_of_text>", "<end_of_text>"
_WORD_END = "</w>"

_PATTERN = r"'[sſ]|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
"""CLIP's words. The original ignores case, by which ``ſ`` is an s."""

_CLEANING = (
    (r"[\x00-\x08\x0b\x0e-\x1b\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]", ""),
    (r"[\u02bc\u2018-\u201b]", "'"),
    (r"[\u201c-\u201f]", '"'),
    ("ĳ", "ij"),
    ("ﬀ", "ff"),
    ("ﬁ", "fi"),
    ("ﬂ", "fl"),
    ("ﬃ", "ffi"),
    ("ﬄ", "ffl"),
    ("[ﬅﬆ]", "st"),
    # Python's lower(): a capital sigma that ends a word becomes the final form.
    (r"(?<=\p{L})Σ(?![\p{Mn}\p{Me}\p{Cf}\p{Lm}\p{Sk}'.:·]*\p{L})", "ς"),
    # The combining iota matches none of the original's classes when case is ignored, and so separates words.
    (r"[\s\x1c-\x1f\u0345]+", " "),
)
"""Regular expressions (Oniguruma) and replacements, applied in order after NFC and before lower-casing."""

_logger = logging.getLogger(__name__)


def clip_tokenizer_json() -> str:
    """Returns the tokenizer file's content, built from the vocabulary that open_clip ships."""
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    letters = list(bytes_to_unicode().values())
    merges = lines[1 : VOCABULARY_SIZE - 2 * len(letters) - 2 + 1]
    pieces = [*letters, *(letter + _WORD_END for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, _START, _END])}
    content: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "NFC"},
                *({"type": "Replace", "pattern": {"Regex": old}, "content": new} for old, new in _CLEANING),
                {"type": "Lowercase"},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": _PATTERN}, "behavior": "Removed", "invert": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [_special(_START), {"Sequence": {"id": "A", "type_id": 0}}, _special(_END)],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {
                name: {"id": name, "ids": [vocabulary[name]], "tokens": [name]} for name in (_START, _END)
            },
        },
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": _WORD_END,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": merges,
        },
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def write_tokenizer(clip: nn.Module, path: Path) -> None:
    """Writes the tokenizer of a CLIP model.

    Args:
        clip: open_clip model with CLIP's vocabulary.
        path: File to write, about 2 MB.

    Raises:
        InputError: The model's vocabulary has another size than CLIP's.
    """
    size = clip.vocab_size if hasattr(clip, "vocab_size") else None
    if size != VOCABULARY_SIZE:
        raise InputError(f"the CLIP model has {size} tokens; expected CLIP's {VOCABULARY_SIZE}. Use a plain CLIP.")
    content = clip_tokenizer_json()
    Tokenizer.from_str(content)
    path.write_text(content, encoding="utf-8")
    _logger.info("%s: %d tokens, %.1f MB", path.name, VOCABULARY_SIZE, len(content.encode()) / 1e6)


def _special(name: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": name, "type_id": 0}}
