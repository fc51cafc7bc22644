"""Writes what the Python runtime answers, for the C++ tests to compare with: ``expected.py FOLDER``.

``language.json`` holds tokens and noun phrases of every shipped expression, and tokens of random strings;
``answers.json`` the answers to every expression about the shipped scenes, whose pixels lie beside it as raw RGB.
"""

from __future__ import annotations

import argparse
import json
import random
import unicodedata
from pathlib import Path
from typing import Any

import risengine
from risbench.data.refer import ReferDataset, load_refer, tabletop_root
from risbench.data.spoken import load_spoken
from risengine.bundle import open_bundle
from risengine.config import RuntimeConfig
from risengine.engine import Engine
from risengine.images import load_image
from risengine.masks import unpack_runs
from risengine.text import parse_expression

RANDOM_TEXTS = 1000


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bundle", default="tabletop")
    parser.add_argument("--every", type=int, default=1, help="of how many scenes one is answered")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    dataset = load_refer(tabletop_root(), "tabletop")
    engine = risengine.load(options.bundle, RuntimeConfig(threads=1, strategy="global_local"))
    tokenizer = open_bundle(options.bundle).tokenizer_path
    write(options.folder / "language.json", language(engine, tokenizer, dataset))
    write(options.folder / "answers.json", answers(engine, dataset, options.folder, options.every))


def write(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON."""
    path.write_text(json.dumps(content), encoding="utf-8")


def language(engine: Engine, tokenizer_path: Path, dataset: ReferDataset) -> dict[str, Any]:
    """Returns what Python reads in every shipped expression, and tokens of these and of random strings."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    generated = [sentence.raw for ref in dataset.refs for sentence in ref.sentences]
    spoken = [expression.text for expression in load_spoken(tabletop_root())]
    phrases = []
    for kind, texts in (("generated", generated), ("spoken", spoken)):
        for text in texts:
            expression = parse_expression(text, engine.method)
            phrases.append({"kind": kind, "text": text, "sentence": expression.sentence, "phrase": expression.phrase})
    texts = [*generated, *spoken, *random_texts()]
    return {"phrases": phrases, "tokens": [{"text": text, "ids": tokenizer.encode(text).ids} for text in texts]}


def random_texts() -> list[str]:
    """Returns strings over all of Unicode that Python knows, and over the letters that CLIP's rules name."""
    draw = random.Random(8)
    special = "'\"aAsStTßſΣσςİıĳﬀﬁﬂﬃﬄﬅﬆʼ‘’‛“”‟\u0345\u0301\u0327\u1100\u1161\u11a8\ufeff\u200d\u2028\t\n\r\x0b\x1c.:·  "
    known = [chr(point) for point in range(0x110000) if unicodedata.category(chr(point)) not in ("Cn", "Cs", "Co")]
    texts = []
    while len(texts) < RANDOM_TEXTS:
        letters = draw.choice((known, special, known[:0x500], [*special, *known[:0x250]]))
        texts.append("".join(draw.choice(letters) for _ in range(draw.randint(0, 40))))
    return texts


def answers(engine: Engine, dataset: ReferDataset, folder: Path, every: int) -> dict[str, Any]:
    """Answers every expression of the scenes by the paper's score."""
    scenes = []
    for image_id in sorted(dataset.images)[::every]:
        pixels = load_image(dataset.image_path(image_id))
        name = f"{dataset.images[image_id].file_name}.rgb"
        (folder / name).write_bytes(pixels.tobytes())
        encoded = engine.encode_image(pixels)
        proposals = encoded.proposals
        asked = []
        for text in dict.fromkeys(s.raw for ref in dataset.refs if ref.image_id == image_id for s in ref.sentences):
            best = engine.segment(encoded, text)
            asked.append({"text": text, "phrase": best.phrase, "index": best.index, "score": best.score})
        scenes.append(
            {
                "pixels": name,
                "height": pixels.shape[0],
                "width": pixels.shape[1],
                "boxes": proposals.boxes.tolist(),
                "masks": [unpack_runs(counts).tolist() for counts in proposals.counts],
                "expressions": asked,
            }
        )
    return {"scenes": scenes}


if __name__ == "__main__":
    main()
