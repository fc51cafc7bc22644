"""Training of the tabletop models: data, features, losses, resuming and exported files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import load_file
from torch import Tensor, nn

from risexport.clip.crops import token_weights
from risexport.presets import MASKED_BLOCKS, ClipFacts, method_for
from tabletop import evaluate, train_clip, train_sam
from tabletop.clip_loss import ClipLoss, disturb_tokens
from tabletop.clip_model import (
    TokenTable,
    VisualInputs,
    build_clip,
    encode_tokens,
    global_features,
    load_config,
    local_features,
)
from tabletop.clip_views import ViewTensors
from tabletop.dataset import SceneData
from tabletop.evaluate import load_clip
from tabletop.resample import cut_boxes, tight_boxes
from tabletop.sam_loss import SamBatch, SamLoss, sam_losses, sample_pixels
from tabletop.sam_model import build_tabletop_sam, decode_prompts
from tabletop.training import randomness
from tabletop.views import CROP_PX, MAX_OVERLAP, make_distractors, make_views, roughen

CPU = torch.device("cpu")
COLOURS = {"red": (210, 30, 30), "green": (30, 160, 40), "blue": (30, 60, 210)}
SIZES = {"small": 14, "large": 26}


def write_shards(root: Path, shards: int, scenes: int, size: tuple[int, int] = (90, 120), seed: int = 0) -> Path:
    """Writes `shards` folders of `scenes` scenes each below `root` and returns `root`."""
    random = np.random.default_rng(seed)
    for shard in range(shards):
        folder = root / f"shard-{shard:04d}"
        folder.mkdir(parents=True)
        images = np.empty((scenes, *size, 3), np.uint8)
        instances = np.zeros((scenes, *size), np.uint8)
        lines = []
        for row in range(scenes):
            images[row] = 150 + random.integers(-8, 8, (*size, 3))
            lines.append(json.dumps(_draw_scene(images[row], instances[row], random)))
        np.save(folder / "images.npy", images)
        np.save(folder / "instances.npy", instances)
        (folder / "scenes.jsonl").write_text("\n".join(lines) + "\n")
    return root


def _draw_scene(image: Any, instances: Any, random: np.random.Generator) -> dict[str, Any]:
    height, width = instances.shape
    y, x = np.mgrid[:height, :width]
    objects: list[dict[str, Any]] = []
    pairs = random.permutation([(c, k) for c in COLOURS for k in ("ball", "cube")])[:3]
    for column, (colour, name) in enumerate(pairs):
        size = str(random.choice(list(SIZES)))
        radius = SIZES[size] * height / 180
        centre = (random.uniform(0.3, 0.7) * height, (column + 0.5) / 3 * width)
        if name == "ball":
            inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
        else:
            inside = np.maximum(abs(y - centre[0]), abs(x - centre[1])) < radius
        image[inside] = COLOURS[str(colour)]
        instances[inside] = column + 1
        objects.append(
            {
                "class": str(name),
                "colour": str(colour),
                "size": size,
                "visible_px": int(inside.sum()),
                "visible_fraction": 1.0,
            }
        )
    expressions = []
    for index, item in enumerate(objects):
        text = f"the {item['colour']} {item['class']}"
        spec = {"classes": [item["class"]], "colour": item["colour"], "size": None}
        expressions.append(
            {"text": text, "phrase": text, "kind": "attribute", "target": index, "fits": [index], "spec": spec}
        )
    for kind, text, phrase, target in (
        ("place", "the leftmost object", "the leftmost object", 0),
        ("relation", "the thing left of the rightmost one", "the thing", 1),
    ):
        expressions.append({"text": text, "phrase": phrase, "kind": kind, "target": target, "fits": [0, 1, 2]})
    return {"objects": objects, "expressions": expressions}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"), shards=2, scenes=4)


@pytest.fixture(scope="module")
def clip() -> CLIP:
    torch.manual_seed(0)
    return build_clip(load_config(), 40).eval()


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def random_masks(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    for mask in masks:
        y, x = (int(torch.randint(0, end // 2, (), generator=generator)) for end in (height, width))
        h, w = (int(torch.randint(8, end // 2, (), generator=generator)) for end in (height, width))
        mask[y : y + h, x : x + w] = torch.rand(h, w, generator=generator) < 0.7
        mask[y, x] = mask[y + h - 1, x + w - 1] = True
    return masks


@pytest.mark.parametrize("box", [(0, 0, 50, 40), (7, 3, 12, 40), (20, 11, 44, 14), (49, 39, 50, 40)])
def test_cut_boxes_equals_torch_antialias_of_the_crop(box: tuple[int, int, int, int]) -> None:
    image = torch.rand(1, 3, 40, 50)
    left, top, right, bottom = box
    crop = image[:, :, top:bottom, left:right]
    expected = F.interpolate(crop, (16, 24), mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(cut_boxes(image, torch.tensor([box]), (16, 24)), expected, atol=2e-6, rtol=0)


def test_tight_boxes() -> None:
    masks = random_masks(6, 30, 40)
    for mask, box in zip(masks, tight_boxes(masks), strict=True):
        rows, columns = np.nonzero(mask.numpy())
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert tight_boxes(torch.zeros(1, 30, 40, dtype=torch.bool)).tolist() == [[0, 0, 40, 30]]


def plain_block(block: nn.Module, x: Tensor) -> Tensor:
    """One transformer block for one sequence (T, D), attention written out."""
    attention: Any = block.attn
    heads = attention.num_heads
    normed = F.layer_norm(x, x.shape[1:], block.ln_1.weight, block.ln_1.bias)
    q, k, v = (normed @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, 1)
    mixed = []
    for q_head, k_head, v_head in zip(q.chunk(heads, 1), k.chunk(heads, 1), v.chunk(heads, 1), strict=True):
        mixed.append((q_head @ k_head.T / q_head.shape[1] ** 0.5).softmax(1) @ v_head)
    x = x + torch.cat(mixed, 1) @ attention.out_proj.weight.T + attention.out_proj.bias
    normed = F.layer_norm(x, x.shape[1:], block.ln_2.weight, block.ln_2.bias)
    hidden = F.gelu(normed @ block.mlp.c_fc.weight.T + block.mlp.c_fc.bias)
    return x + hidden @ block.mlp.c_proj.weight.T + block.mlp.c_proj.bias


def random_inputs(side_px: int) -> VisualInputs:
    """Two images and three masks: soft, one that keeps every token, one that keeps none."""
    generator = torch.Generator().manual_seed(4)
    cells = (side_px // 16) ** 2
    weights = torch.rand(3, cells, generator=generator) * (torch.rand(3, cells, generator=generator) < 0.3)
    weights[1], weights[2] = 1.0, 0.0
    pixels = torch.randn(5, 3, side_px, side_px, generator=generator)
    return VisualInputs(pixels[:2], weights, pixels[2:], torch.tensor([0, 1, 1]))


@torch.no_grad()
def test_global_features_equal_the_method_step_by_step(clip: CLIP) -> None:
    for parameter in clip.visual.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))  # a fresh layer norm's bias, the masked tokens' key, is 0
    inputs = random_inputs(96)
    found = global_features(clip, inputs)
    visual = clip.visual
    for weights, image, feature in zip(inputs.weights, inputs.squashed[inputs.owner], found, strict=True):
        patches = visual.conv1(image[None])[0].flatten(1).T
        x = torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding
        x = visual.ln_pre(x)
        for number, block in enumerate(visual.transformer.resblocks):
            if number >= len(visual.transformer.resblocks) - MASKED_BLOCKS:
                x = torch.cat([x[:1], x[1:] * weights[:, None]])
            x = plain_block(block, x)
        torch.testing.assert_close(feature, (visual.ln_post(x[:1]) @ visual.proj)[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_local_features_equal_open_clip(clip: CLIP) -> None:
    inputs = random_inputs(96)
    torch.testing.assert_close(local_features(clip, inputs), clip.encode_image(inputs.crops), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_compact_token_table_equals_the_expanded_one() -> None:
    texts = ["the small red cube", "the mug"]
    table = TokenTable.of_texts(texts)
    torch.manual_seed(1)
    compact = build_clip(load_config(), len(table)).eval()
    full = build_clip(load_config(), 49408).eval()
    state = compact.state_dict()
    state["token_embedding.weight"] = table.expand(state["token_embedding.weight"], 49408)
    full.load_state_dict(state)
    asked = [*texts, "the turquoise cube"]
    expected = full.encode_text(open_clip.get_tokenizer("ViT-B-32")(asked))
    torch.testing.assert_close(encode_tokens(compact, table.encode(asked)), expected, atol=1e-5, rtol=1e-5)
    unseen = state["token_embedding.weight"][[0, 1, 5000]]
    assert torch.equal(unseen, unseen[:1].expand(3, -1))
    assert not torch.equal(state["token_embedding.weight"][table.ids[0]], unseen[0])


def test_disturbed_tokens_keep_their_ends(generator: torch.Generator) -> None:
    table = TokenTable.of_texts(["the small red cube"])
    tokens = table.encode(["the small red cube"] * 200)
    dropped = torch.rand(200, len(table), generator=generator) < 0.3
    disturbed = disturb_tokens(tokens, len(table), dropped, generator)
    end, start = len(table) - 1, len(table) - 2
    assert (disturbed[:, 0] == start).all()
    assert ((disturbed == end).sum(1) == 1).all()
    inserted = disturbed.argmax(1) - tokens.argmax(1)
    assert set(inserted.tolist()) == {0, 1}
    untouched = ~dropped.gather(1, tokens)[:, 1:5].any(1) & (inserted == 0)
    assert torch.equal(disturbed[untouched], tokens[untouched])
    assert (disturbed[dropped.gather(1, tokens)[:, 1:5].any(1)][:, 1:6] == 0).any(1).all()


def test_scene_data_gathers_across_shards(shards: Path) -> None:
    data = SceneData(shards, CPU)
    assert (len(data), data.size) == (8, (90, 120))
    rows = np.array([6, 1, 3, 4])
    images = np.concatenate([np.load(shards / f"shard-000{i}" / "images.npy") for i in (0, 1)])
    assert np.array_equal(data.images(rows).permute(0, 2, 3, 1).numpy(), images[rows])
    objects, owner = data.rows_of(rows)
    assert np.array_equal(data.objects.scene[objects], rows[owner])
    expressions = data.expressions
    for row, target in enumerate(expressions.target):
        facts = json.loads(
            (shards / f"shard-000{data.objects.scene[target] // 4}" / "scenes.jsonl")
            .read_text()
            .splitlines()[data.objects.scene[target] % 4]
        )
        wanted = [e for e in facts["expressions"] if e["text"] == data.texts[expressions.text[row]]]
        assert data.objects.label[target] - 1 in [e["target"] for e in wanted]


def test_scene_data_refuses_a_cut_off_shard(tmp_path: Path) -> None:
    write_shards(tmp_path, shards=1, scenes=3)
    facts = tmp_path / "shard-0000" / "scenes.jsonl"
    facts.write_text(facts.read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="found 3, 3 and 1"):
        SceneData(tmp_path, CPU)
    with pytest.raises(ValueError, match="found none"):
        SceneData(tmp_path / "shard-0000", CPU)


def test_distractors_are_wrong_masks(shards: Path) -> None:
    data = SceneData(shards, CPU)
    rng = np.random.default_rng(0)
    made_in_all = 0
    for scene in range(8):
        instances = data.instances(np.array([scene]))[0].numpy()
        masks = [instances == label for label in (1, 2, 3)]
        made = make_distractors(masks, instances == 0, rng)
        made_in_all += len(made)
        for mask in made:
            assert max((mask & known).sum() / (mask | known).sum() for known in masks) < MAX_OVERLAP
    assert made_in_all > 12


def test_roughened_masks_stay_near() -> None:
    y, x = np.mgrid[:90, :120]
    mask = (y - 45) ** 2 + (x - 60) ** 2 < 25**2
    rng = np.random.default_rng(0)
    iou = [(rough & mask).sum() / (rough | mask).sum() for rough in (roughen(mask, rng) for _ in range(40))]
    assert min(iou) > 0.6
    assert max(iou) < 1


def test_views_show_every_object_twice_as_the_graph_would(shards: Path, clip: CLIP) -> None:
    data = SceneData(shards, CPU)
    views = make_views(data, seed=0)
    assert len(views.squashed) == len(data)
    scene, generator = np.array([3]), torch.Generator()
    chosen = ViewTensors(views, CPU).choose(scene, None)
    np.testing.assert_array_equal(chosen.object_rows, data.rows_of(scene)[0])
    inputs = ViewTensors(views, CPU).inputs(chosen, clip.visual, generator, 0.0)
    instances = data.instances(scene)
    masks = instances == torch.from_numpy(data.objects.label[chosen.object_rows])[:, None, None]
    mean, std = (torch.tensor(v)[:, None, None] for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    image = data.images(scene).float() / 255
    filled = torch.where(masks[:, None], (image - mean) / std, torch.zeros(()))
    crops = cut_boxes(filled, tight_boxes(masks), (CROP_PX, CROP_PX))
    torch.testing.assert_close(inputs.crops[: len(masks)], crops, atol=0.06, rtol=0)  # 8-bit steps over std
    facts = ClipFacts(
        "clip.json", "random", "", "vit", CROP_PX, 128, 77, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    )
    exported = token_weights(masks, clip.visual.grid_size[0], method_for("clean", facts))
    found = inputs.weights[: len(masks)]
    torch.testing.assert_close(found, exported, atol=2 / 255 + 1e-4, rtol=0)  # the views are kept in 8 bits
    assert torch.equal(found > 0, exported > 0)
    again = make_views(data, seed=0)
    np.testing.assert_array_equal(again.crops, views.crops)


def test_views_are_cut_on_the_cpu(shards: Path) -> None:
    data = SceneData(shards, CPU)
    data.device = torch.device("meta")
    with pytest.raises(ValueError, match=r"expected scenes on the CPU.*got them on meta.*ViewTensors"):
        make_views(data, seed=0)


@pytest.mark.parametrize(
    ("size_px", "message"),
    [(100, "multiple of the patch size 16 px, got 100 px"), (128, "patches a side that divide 60, got 128 px")],
)
def test_views_refuse_an_image_size_they_cannot_serve(shards: Path, size_px: int, message: str) -> None:
    views = ViewTensors(make_views(SceneData(shards, CPU), seed=0), CPU)
    visual = build_clip(load_config(), 40, size_px).visual
    with pytest.raises(ValueError, match=message):
        views.inputs(views.choose(np.array([0]), None), visual, torch.Generator(), 0.0)


def test_clip_training_follows_the_views_device(shards: Path) -> None:
    """As on a GPU, the scenes are on another device than views and model; here no batch may touch theirs."""
    data = SceneData(shards, CPU)
    table = TokenTable.of_texts(data.texts)
    model, views = build_clip(load_config(), len(table)), ViewTensors(make_views(data, seed=0), CPU)
    data.device = torch.device("meta")
    losses = ClipLoss(model, data, views, table, 2)(randomness(0, 0, CPU))
    assert {value.device for value in losses.values()} == {CPU}
    figures = evaluate.choice_accuracy(model, table, data, views)
    assert 0 <= (figures["attribute"] or 0) <= 1


def test_clip_loss_depends_on_seed_and_step_alone(shards: Path) -> None:
    data = SceneData(shards, CPU)
    table = TokenTable.of_texts(data.texts)
    torch.manual_seed(0)
    views = ViewTensors(make_views(data, seed=0), CPU)
    loss = ClipLoss(build_clip(load_config(), len(table)), data, views, table, 2)
    with torch.no_grad():
        first, second, other = (loss(randomness(5, step, CPU))["loss"] for step in (3, 3, 4))
    assert torch.isfinite(first)
    assert first == second != other


def test_decode_prompts_equals_the_stock_decoder(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    sam = build_tabletop_sam().eval()
    embeddings = torch.randn(2, 64, 32, 32, generator=generator)
    points = torch.rand(6, 2, 2, generator=generator) * 256
    labels = torch.tensor([[1, 0]] * 6)
    with torch.no_grad():
        sparse, dense = sam.prompt_encoder((points, labels), None, None)
        logits, rating = decode_prompts(sam, embeddings, sparse.unflatten(0, (2, 3)))
        for image in range(2):
            part = slice(3 * image, 3 * image + 3)
            expected_logits, expected_rating = sam.mask_decoder.predict_masks(
                embeddings[image : image + 1], sam.prompt_encoder.get_dense_pe(), sparse[part], dense[part]
            )
            torch.testing.assert_close(logits[part], expected_logits, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(rating[part], expected_rating, atol=1e-5, rtol=1e-4)


def test_sam_losses_reward_the_right_mask_and_rating() -> None:
    coarse = torch.zeros(3, 1, 128, 128)
    coarse[:, :, 20:70, 30:90] = 1
    truth = coarse[:, 0, :96] > 0
    background = torch.tensor([False, False, True])
    batch = SamBatch(torch.zeros(1, 3, 256, 256), truth, background, torch.ones(3, dtype=torch.bool))
    logits = (40 * coarse - 20).expand(-1, 4, -1, -1)
    rating = torch.ones(3, 4)
    rating[2] = 0
    right = sam_losses(logits, rating, batch, batch.usable)
    assert right["loss"] < 0.05
    assert right["best_iou"] > 0.97
    assert right["iou"] < 0.002
    rated_wrong = sam_losses(logits, 1 - rating, batch, batch.usable)
    assert rated_wrong["iou"] > 0.9
    assert sam_losses(-logits, rating, batch, batch.usable)["loss"] > 1
    one_of_three = torch.cat([-logits[:, :3], logits[:, :1]], 1)
    assert sam_losses(one_of_three, rating, batch, batch.usable)["best_iou"] > 0.97


def test_sampled_pixels_cover_the_mask_evenly(generator: torch.Generator) -> None:
    mask = torch.zeros(9, 12, dtype=torch.bool)
    mask[2:4, 3:6] = mask[7, 11] = True
    points = sample_pixels(mask.expand(7000, -1, -1), generator).long()
    assert mask[points[:, 1], points[:, 0]].all()
    counts = torch.bincount(points[:, 1] * 12 + points[:, 0], minlength=108)[mask.flatten()]
    assert counts.min() > 850
    assert counts.max() < 1150


def test_sam_loss_is_finite_for_every_kind_of_prompt(shards: Path) -> None:
    data = SceneData(shards, CPU)
    torch.manual_seed(0)
    sam = build_tabletop_sam()
    loss = SamLoss(sam, data, 1, 3)
    for step in range(6):
        losses = loss(randomness(1, step, CPU))
        losses["loss"].backward()
        assert all(torch.isfinite(value) for value in losses.values())
    trained = {name.split(".")[1] for name, p in sam.prompt_encoder.named_parameters("prompt") if p.grad is not None}
    assert {"point_embeddings", "not_a_point_embed", "no_mask_embed"} <= trained


def test_train_clip_writes_weights_that_open_clip_loads(shards: Path, tmp_path: Path) -> None:
    words = [str(shards), "--val", str(shards), "--out", str(tmp_path), "--minutes", "0.03", "--device", "cpu"]
    train_clip.main([*words, "--scenes-per-step", "2"])
    CLIP(**load_config()).load_state_dict(load_file(tmp_path / "clip.safetensors"))
    assert {value.dtype for value in load_file(tmp_path / "clip.safetensors").values()} == {torch.float16}
    model, _ = load_clip(tmp_path / "clip.safetensors")
    kept = torch.unique(model.token_embedding.weight, dim=0)
    assert len(kept) == len(TokenTable.of_texts(SceneData(shards, CPU).texts))
    metrics = json.loads((tmp_path / "clip_metrics.json").read_text())
    assert 0 <= metrics["attribute"] <= 1
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["final"] == metrics


def test_a_first_stage_leaves_only_what_the_next_begins_from(shards: Path, tmp_path: Path) -> None:
    words = [str(shards), "--val", str(shards), "--minutes", "0.02", "--device", "cpu", "--scenes-per-step", "2"]
    first, second = tmp_path / "first", tmp_path / "second"
    train_clip.main([*words, "--out", str(first), "--image-size", "64"])
    assert {path.name for path in first.iterdir()} == {"checkpoint.pt", "clip_metrics.json", "log.jsonl"}
    train_clip.main([*words, "--out", str(second), "--init", str(first / "checkpoint.pt")])
    assert (second / "clip.safetensors").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use")
def test_training_and_evaluation_run_on_a_gpu(shards: Path, tmp_path: Path) -> None:
    words = [str(shards), "--val", str(shards), "--out", str(tmp_path), "--minutes", "0.1", "--device", "cuda"]
    train_clip.main([*words, "--scenes-per-step", "2"])
    torch.manual_seed(0)
    train_sam.export_sam(build_tabletop_sam(), tmp_path / "sam.safetensors")
    weights = ["--clip", str(tmp_path / "clip.safetensors"), "--sam", str(tmp_path / "sam.safetensors")]
    evaluate.main([str(shards), *weights, "--images", "1", "--device", "cuda", "--out", str(tmp_path / "metrics.json")])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    trained = json.loads((tmp_path / "clip_metrics.json").read_text())
    assert metrics["choice"]["attribute"] == pytest.approx(trained["attribute"], abs=0.1)  # float16 weights
    assert 0 <= metrics["point"]["best of three"] <= 1


def test_train_sam_writes_weights_that_load_strictly(shards: Path, tmp_path: Path) -> None:
    words = [str(shards), "--val", str(shards), "--out", str(tmp_path), "--minutes", "0.03", "--device", "cpu"]
    train_sam.main([*words, "--images-per-step", "1", "--prompts-per-image", "3"])
    build_tabletop_sam().load_state_dict(load_file(tmp_path / "sam.safetensors"))
    metrics = json.loads((tmp_path / "sam_metrics.json").read_text())
    assert 0 <= metrics["best of three"] <= 1


def test_choice_accuracy_counts_right_choices(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = SceneData(shards, CPU)
    table = TokenTable.of_texts(data.texts)
    colours = torch.eye(3)

    def colour_of_masks(_: CLIP, inputs: VisualInputs) -> Tensor:
        return colours[inputs.crops.sum((2, 3)).argmax(1)]

    def colour_of_texts(_: CLIP, sentences: Tensor, phrases: Tensor) -> Tensor:
        words = [table.encode([name])[0, 1] for name in ("red", "green", "blue")]
        return torch.stack([(phrases == word).any(1).float() for word in words], 1)

    monkeypatch.setattr(evaluate, "visual_features", colour_of_masks)
    monkeypatch.setattr(evaluate, "text_features", colour_of_texts)
    views = ViewTensors(make_views(data, seed=0), CPU)
    found = evaluate.choice_accuracy(build_clip(load_config(), len(table)), table, data, views)
    # Two objects of a scene may share their colour; then the first of them is chosen and one answer is wrong.
    first, wanted = 0, 0
    for shard in sorted(shards.glob("*/scenes.jsonl")):
        for line in shard.read_text().splitlines():
            named = [item["colour"] for item in json.loads(line)["objects"]]
            first += len(set(named))
            wanted += len(named)
    assert 0.5 < first / wanted < 1
    assert found["attribute"] == found["attribute without size"] == pytest.approx(first / wanted, abs=1e-4)
    assert found["attribute with size"] is None


def test_evaluate_reports_the_mask_generator(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    train_sam.export_sam(build_tabletop_sam(), tmp_path / "sam.safetensors")
    monkeypatch.setattr(evaluate, "POINTS_PER_SIDE", 2)
    monkeypatch.setattr(evaluate, "GENERATOR_SETTINGS", ((-10.0, -1.0), (10.0, 0.9)))
    words = [str(shards), "--sam", str(tmp_path / "sam.safetensors"), "--images", "1", "--device", "cpu"]
    evaluate.main([*words, "--out", str(tmp_path / "metrics.json")])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    everything, nothing = metrics["generator"]
    assert everything["proposals an image"] > 0
    assert (nothing["proposals an image"], nothing["oracle"]) == (0, 0)
    assert set(metrics["point"]) >= {"best of three", "rating error", "rating on table"}
