"""The plain guidance is the engine's strategy where no fault is asked for; each fault shows in its place alone."""

from __future__ import annotations

import numpy as np
import pytest
from bench_samples import CLEAN
from hypothesis import given, settings
from hypothesis import strategies as st

import risengine
import risengine.scoring.strategies
from risbench.data.refer import tabletop_root
from risbench.data.spoken import load_spoken
from risbench.quality.hybridgl import FAULTS, Fault, PublishedGuidance, PublishedHybridgl
from risbench.quality.language import PUBLISHED, LanguageConfig, measure_language
from risbench.reports.language_tables import markdown_language
from risengine.bundle import open_bundle
from risengine.errors import InputError
from risengine.scoring.strategies import STRATEGIES, Evidence, texts_of
from risengine.text import parse_expression
from risengine.types import EncodedImage, Proposals

PLAIN = ("the red mug", "the leftmost mug", "the mug left of the green box", "the mug behind the box that is not red")
UPRIGHT = ("the top mug", "the mug at the back", "the bottom right mug")
RIGHT = ("the mug right of the green box", "the mug to the right of the ball")
TEXTS = (*PLAIN, *UPRIGHT, *RIGHT)


def _evidence(text: str, seed: int, count: int = 8) -> Evidence:
    """Random boxes and random features, of masks and of texts."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, 30, 40), bool)
    for mask in masks:
        y, x = rng.integers(25), rng.integers(35)
        mask[y : y + rng.integers(1, 12), x : x + rng.integers(1, 12)] = True
    features = rng.normal(size=(count, 16)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    expression = parse_expression(text, CLEAN)
    texts = {name: rng.normal(size=16).astype(np.float32) for name in texts_of(expression, "hybridgl")}
    image = np.zeros((30, 40, 3), np.uint8)
    return Evidence(EncodedImage(image, Proposals.from_masks(masks), features, "", {}, 0.5), texts, expression, CLEAN)


def _engines(evidence: Evidence) -> np.ndarray:
    return STRATEGIES["hybridgl"](evidence).values


@given(st.integers(0, 2**32 - 1), st.sampled_from(TEXTS), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_without_faults_it_is_the_engines(seed: int, text: str, count: int) -> None:
    guidance = PublishedGuidance(())
    guidance.score(_evidence("the mug", 0, 1))  # leaves no trace
    evidence = _evidence(text, seed, count)
    np.testing.assert_allclose(guidance.score(evidence), _engines(evidence), atol=1e-6)


@pytest.mark.parametrize(("fault", "texts"), [("right", RIGHT), ("vertical", UPRIGHT)])
def test_a_fault_of_reading_shows_in_its_words_alone(fault: Fault, texts: tuple[str, ...]) -> None:
    for text in TEXTS:
        evidence = _evidence(text, 5)
        same = np.allclose(PublishedGuidance((fault,)).score(evidence), _engines(evidence), atol=1e-6)
        assert same == (text not in texts), text


def test_right_and_vertical_are_as_if_not_said() -> None:
    related = _evidence(RIGHT[0], 3)
    terms = STRATEGIES["hybridgl"](related).terms
    np.testing.assert_allclose(PublishedGuidance(("right",)).score(related), terms["contrast and position"], atol=1e-6)
    both = _evidence("the bottom right mug", 3)
    order = PublishedGuidance(("vertical",)).score(both)
    ramp = both.geometry.centre[:, 0] - both.geometry.centre[:, 0].min()
    looks = STRATEGIES["contrast"](both).values.astype(np.float64)
    looks = (looks - looks.min()) / (looks.max() - looks.min())
    np.testing.assert_allclose(order, 0.6 * looks * ramp / ramp.max(), atol=1e-6)


def test_few_masks_shrink_what_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    text, guidance = PLAIN[2], PublishedGuidance(("shrinking",))
    evidences = [_evidence(text, seed) for seed in range(20)]
    for evidence in evidences:
        np.testing.assert_allclose(guidance.score(evidence), _engines(evidence), atol=1e-6)
    guidance.score(_evidence(text, 0, 2))
    assert (guidance.candidates, guidance.references) == (2, 2)
    after = [guidance.score(evidence) for evidence in evidences]
    assert not all(np.allclose(a, _engines(e), atol=1e-6) for a, e in zip(after, evidences, strict=True))
    monkeypatch.setattr(risengine.scoring.strategies, "CANDIDATES", 2)
    monkeypatch.setattr(risengine.scoring.strategies, "REFERENCES", 2)
    for score, evidence in zip(after, evidences, strict=True):
        np.testing.assert_allclose(score, _engines(evidence), atol=1e-6)


def test_unknown_faults_are_refused() -> None:
    with pytest.raises(InputError, match="fault 'left' is unknown; expected some of right, shrinking, vertical"):
        PublishedGuidance(("left",))  # type: ignore[arg-type]


def test_the_column_of_the_language_report() -> None:
    root = tabletop_root()
    with risengine.load("tabletop") as engine, pytest.MonkeyPatch.context() as patch:
        patch.setattr("risbench.quality.language.load_spoken", lambda root: load_spoken(root)[:3])
        right = PublishedHybridgl(engine, open_bundle("tabletop"), ())
        report = measure_language(engine, LanguageConfig(root, splits=("scenes",), limit=1), right)
        assert all(shares[PUBLISHED] == shares["hybridgl"] for shares in report.right["scenes"].values())
        faulty = PublishedHybridgl(engine, open_bundle("tabletop"), FAULTS)
        config = LanguageConfig(root, splits=("scenes",), limit=1, hybridgl_faults=FAULTS)
        report = measure_language(engine, config, faulty)
    table = markdown_language(report)
    assert f"| contrast | {PUBLISHED} |" in table
    assert "right, shrinking, vertical" in table
