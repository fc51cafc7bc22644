from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from known_sources import BrokenSource, KilledSource, KnownSource

from risbench.cli import main
from risbench.random_sam import choose_thresholds
from risbench.reports.latency_tables import format_proposals, markdown_proposals
from risbench.speed.peak_memory import MemoryJob, PeakMemory, measure_memory
from risbench.speed.proposal_cases import match_proposals
from risbench.speed.proposal_report import ProposalsConfig, ProposalsReport
from risbench.speed.proposals import measure_proposals
from risbench.speed.stock_side import StockSide, StockSource
from risengine.bundle import open_bundle
from risengine.errors import InputError
from risengine.method import ProposalSettings
from risengine.types import Proposals

MODEL = "tabletop.sam_model:build_tabletop_sam"
WEIGHTS = Path(__file__).parents[2] / "models" / "tabletop" / "weights" / "sam.safetensors"
SIDE, SIZE = 4, (60, 80)
CELLS, WIDTH, INNER, MLP, TOKENS = 32 * 32, 64, 32, 256, 7
MIB = 2**20


pytestmark = pytest.mark.usefixtures("torch_threads")


@pytest.fixture(scope="module")
def report() -> ProposalsReport:
    return measure_proposals(
        ProposalsConfig(
            sam=MODEL, points_per_side=SIDE, keep=(0.5, 1.0), stock_batches=(4,), threads=1, image_size=SIZE, rounds=2
        )
    )


@pytest.fixture(scope="module")
def stock() -> StockSide:
    return StockSource(MODEL, None).open(1)


def test_both_sides_find_the_same_masks(report: ProposalsReport) -> None:
    assert set(report.cases[0].stock) == {64, 4}
    for case in report.cases:
        match = case.engine["exact"].match
        assert {match.found, match.expected} == {side.proposals for side in case.stock.values()}
        assert match.same == 1
    assert report.cases[-1].engine["exact"].match.expected >= 2


def test_every_search_of_the_engine_is_measured(report: ProposalsReport) -> None:
    for case in report.cases:
        assert set(case.engine) == {"exact", "turbo"}
        assert case.engine["turbo"].prompts <= case.engine["exact"].prompts
        assert case.settings.search == "exact"


def test_the_share_asked_for_is_kept(report: ProposalsReport) -> None:
    half, whole = (case.engine["exact"] for case in report.cases)
    assert half.prompts == whole.prompts == SIDE**2
    assert (half.survivors, whole.survivors) == (SIDE**2 // 2, SIDE**2)
    assert half.survivors <= half.masks < 3 * half.survivors
    assert whole.decoder.gflop > half.decoder.gflop


def stock_flops(prompts: int, batches: int) -> int:
    """What segment-anything's prompt encoder and mask decoder multiply, written out."""
    image = 10 * CELLS * WIDTH * INNER  # in five attentions with the tokens, two projections each
    attention = 5 * 2 * TOKENS * CELLS * INNER
    tokens = (
        2 * (4 * TOKENS * WIDTH**2 + 2 * TOKENS**2 * WIDTH + 2 * TOKENS * WIDTH * MLP) + 10 * TOKENS * WIDTH * INNER
    )
    upscaling = CELLS * WIDTH * WIDTH + 4 * CELLS * (WIDTH // 4) * (WIDTH // 2)
    heads = 4 * (2 * WIDTH**2 + WIDTH**2 // 8) + WIDTH * 128 + 128**2 + 128 * 4
    masks = 4 * 16 * CELLS * WIDTH // 8
    positions = 2 * WIDTH  # of the point and of its padding
    prompt = image + attention + tokens + upscaling + heads + masks + positions
    return 2 * (prompts * prompt + batches * CELLS * WIDTH)


def test_the_stock_decoders_arithmetic_is_counted_in_full(stock: StockSide, report: ProposalsReport) -> None:
    for case in report.cases:
        for batch, side in case.stock.items():
            batches = -(-(SIDE**2) // batch)
            assert side.decoder.gflop == pytest.approx(1e-9 * stock_flops(SIDE**2, batches), rel=1e-6)
        assert case.engine["exact"].decoder.gflop < case.stock[64].decoder.gflop
    crops = ProposalSettings(points_per_side=5, points_per_batch=9, crop_n_layers=1)
    assert stock.decoder_gflop(crops, SIZE) == pytest.approx(1e-9 * stock_flops(5 * 25, 5 * 3), rel=1e-6)


def test_rates_and_speedups_follow_from_times(report: ProposalsReport) -> None:
    for case in report.cases:
        limit = max(case.gemm_gflop_per_s.values())
        engine, default = case.engine["exact"], case.stock[64]
        best = case.stock[case.best_batch]
        assert default.encoder is not None
        assert default.whole is not None
        assert all(side.encoder is None for batch, side in case.stock.items() if batch != 64)
        for side in (engine.encoder, engine.decoder, default.encoder, default.decoder, best.decoder):
            assert side.timing.runs == 2
            assert side.gemm_share == pytest.approx(1e3 * side.gflop / side.timing.p50_ms / limit)
        assert engine.whole.mean_ms == pytest.approx(engine.encoder.timing.mean_ms + engine.decoder.timing.mean_ms)
        assert engine.decoder_speedup == pytest.approx(default.decoder.timing.p50_ms / engine.decoder.timing.p50_ms)
        assert engine.best_decoder_speedup == pytest.approx(best.decoder.timing.p50_ms / engine.decoder.timing.p50_ms)
        assert engine.whole_speedup == pytest.approx(default.whole.p50_ms / engine.whole.p50_ms)
        assert best.decoder.timing.p50_ms == min(side.decoder.timing.p50_ms for side in case.stock.values())


def test_the_tables_say_what_was_measured(report: ProposalsReport) -> None:
    text, table = format_proposals(report), markdown_proposals(report)
    for shown in (text, table):
        assert "random weights" in shown
        assert f"{SIDE} x {SIDE} points on a 80 x 60 image, box NMS at 1, fp32, 1 threads" in shown
        assert "runs of each side: 2" in shown
        assert "100 % of prompts kept" in shown
        assert f"image_projector {report.graph_sha256['image_projector'][:12]}" in shown
    assert f"{report.cases[0].engine['exact'].decoder_speedup:.1f} x" in table


def test_an_image_already_encoded_is_remembered_only_where_asked(
    stock: StockSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.full((*SIZE, 3), 90, np.uint8)
    settings = ProposalSettings(points_per_side=1)
    calls = []
    handle = stock.sam.image_encoder.stem.register_forward_hook(lambda *_: calls.append(1))
    for remember in (True, True, False, True):
        stock.run(image, settings, remember_embedding=remember)
    handle.remove()
    assert len(calls) == 2


def test_progress_reaches_the_end_on_both_sides(stock: StockSide) -> None:
    seen: list[tuple[int, int]] = []
    stock.run(
        np.zeros((*SIZE, 3), np.uint8),
        ProposalSettings(points_per_side=3, points_per_batch=4),
        lambda done, total: seen.append((done, total)),
    )
    assert seen == [(4, 9), (8, 9), (9, 9)]


@pytest.mark.parametrize("keep", [0.1, 0.5, 1.0])
def test_thresholds_keep_the_share(keep: float) -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(1, 0.1, (400, 3)).astype(np.float32)
    stability = rng.uniform(0, 1, (400, 3)).astype(np.float32)
    stability[::4] = 0  # empty
    pred_iou_thresh, stability_thresh = choose_thresholds(scores, stability, keep)
    assert (scores.max(axis=1) > pred_iou_thresh).mean() == pytest.approx(keep, abs=0.02)
    assert np.abs(scores - pred_iou_thresh).min() > 1e-6
    passing = stability[(scores > pred_iou_thresh) & (stability > 0)]
    assert (passing > stability_thresh).mean() == pytest.approx(0.5, abs=0.03)
    if keep == 1:
        assert (scores > pred_iou_thresh).mean() < 0.99  # not merely a threshold below everything


def test_no_threshold_can_be_chosen_among_negative_scores() -> None:
    scores = -np.arange(1, 13, dtype=np.float32).reshape(4, 3)
    with pytest.raises(InputError, match="expected positive"):
        choose_thresholds(scores, np.ones_like(scores), 0.5)


def test_every_expected_mask_is_matched_with_the_most_similar() -> None:
    masks = np.zeros((3, 10, 10), np.bool_)
    masks[0, :5], masks[1, 5:], masks[2, :, :2] = True, True, True
    changed = masks.copy()
    changed[0, 4, 5:] = False  # 45 of 50 pixels
    changed[2, :, 1] = False  # half
    match = match_proposals(Proposals.from_masks(changed[[2, 1, 0]]), Proposals.from_masks(masks))
    assert (match.found, match.expected) == (3, 3)
    assert match.lowest_iou == pytest.approx(0.5)
    assert (match.same, match.similar) == pytest.approx((1 / 3, 2 / 3))
    none = Proposals.from_masks(masks[:0])
    assert match_proposals(none, Proposals.from_masks(masks)).lowest_iou == 0
    assert match_proposals(Proposals.from_masks(masks), none).lowest_iou is None


def job(source: Any) -> MemoryJob:
    return MemoryJob("known", source, np.zeros((*SIZE, 3), np.uint8), ProposalSettings(points_per_side=7), 1)


def test_the_peak_of_a_run_is_measured_without_that_of_its_loading() -> None:
    peak = measure_memory(job(KnownSource(loading=400 * MIB, running=200 * MIB)))
    assert peak.peak_mib == pytest.approx(200, abs=15)
    assert peak.loaded_mib is not None
    assert peak.loaded_mib < 200
    assert (peak.image_size, peak.points_per_side, peak.proposals) == (SIZE, 7, 2)


def test_a_run_that_needs_more_memory_than_there_is_is_reported() -> None:
    peak = measure_memory(job(KnownSource(loading=0, running=1 << 45)))
    assert peak.peak_mib is None
    assert peak.proposals is None
    assert peak.limit_mib is not None


def test_a_process_that_the_system_ends_is_reported() -> None:
    assert measure_memory(job(KilledSource())) == PeakMemory("known", SIZE, 7)


def test_other_failures_are_not_taken_for_want_of_memory() -> None:
    with pytest.raises(RuntimeError, match="a defect"):
        measure_memory(job(BrokenSource()))


def test_the_command_measures_a_bundle_against_its_own_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = tmp_path / "out.json", tmp_path / "out.md"
    arguments = [
        "proposals",
        "--sam",
        MODEL,
        "--bundle",
        "tabletop",
        "--sam-checkpoint",
        str(WEIGHTS),
        "--threads",
        "1",
    ]
    arguments += ["--points-per-side", "6", "--stock-batch", "64"]
    assert main([*arguments, "--json", str(outputs[0]), "--markdown", str(outputs[1])]) == 0
    written = json.loads(outputs[0].read_text(encoding="utf-8"))
    (case,) = written["cases"]
    match = case["engine"]["exact"]["match"]
    assert match["found"] == match["expected"] > 0
    assert match["same"] == 1
    assert case["settings"]["pred_iou_thresh"] == open_bundle("tabletop").manifest.proposals.pred_iou_thresh
    assert written["bundle_id"] == open_bundle("tabletop").id
    assert "sam.safetensors" in outputs[1].read_text(encoding="utf-8")
    assert "6 x 6 points on a 640 x 480 image" in capsys.readouterr().out


def test_weights_that_are_not_the_bundles_are_refused(tmp_path: Path, stock: StockSide) -> None:
    other = tmp_path / "other.pt"
    torch.save(stock.sam.state_dict(), other)
    with pytest.raises(InputError, match="bundle's own checkpoint"):
        measure_proposals(ProposalsConfig(sam=MODEL, bundle="tabletop", sam_checkpoint=other))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bundle": "tabletop"}, "both or neither"),
        ({"sam_checkpoint": WEIGHTS}, "both or neither"),
        ({"keep": (0.0,)}, "shares in"),
        ({"keep": (0.5,), "bundle": "tabletop", "sam_checkpoint": WEIGHTS}, "has thresholds"),
        ({"stock_batches": (0,)}, "at least 1"),
        ({"points_per_side": 0}, "points_per_side = 0"),
        ({"rounds": 0}, "rounds = 0"),
        ({"threads": -1}, "threads = -1"),
    ],
)
def test_settings_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ProposalsConfig(**options)
