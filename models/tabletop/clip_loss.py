"""The loss of the small CLIP: batches drawn, roughened and described on the training device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip.model import CLIP
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from risexport.clip.blocks import NEVER
from tabletop.clip_model import TokenTable, text_features, visual_features
from tabletop.clip_views import ViewTensors
from tabletop.dataset import KINDS, Ints, SceneData
from tabletop.training import Randomness, autocast

EXPRESSIONS_PER_SCENE = 8
KIND_SHARES = (0.6, 0.25, 0.15)
RELATION_WEIGHT = 0.5
"""The sentence feature alone cannot solve relations; they only teach it which noun is the target."""
MIN_VISIBLE_FRACTION = 0.4
"""An object more occluded than this counts neither for nor against an expression of another scene."""
WORD_DROPOUT = 0.03
WORD_INSERTION = 0.1
PHRASE_IS_SENTENCE = 0.1
"""Share of expressions whose noun phrase is the whole sentence, as where the parser finds no noun chunk."""
JITTER = 0.15
MAX_LOGIT_SCALE = 4.6052


@dataclass(frozen=True)
class Facts:
    """What of the tables the loss needs, on the device; O objects, T expressions.

    Attributes:
        classes: (O,) int64 class ids.
        colours: (O,) int64 colour ids.
        sizes: (O,) int64 size ids.
        occluded: (O,) bool.
        spec_classes: (T, C) bool.
        spec_colour: (T,) int64, -1 for any.
        spec_size: (T,) int64, -1 for any.
        kind: (T,) int64 positions in `KINDS`.
        tokens: (texts, L) int64 rows of the token table.
        text: (T,) int64 rows of `tokens`.
        phrase: (T,) int64 rows of `tokens`.
    """

    classes: Tensor
    colours: Tensor
    sizes: Tensor
    occluded: Tensor
    spec_classes: Tensor
    spec_colour: Tensor
    spec_size: Tensor
    kind: Tensor
    tokens: Tensor
    text: Tensor
    phrase: Tensor

    def fits(self, expressions: Tensor, objects: Tensor) -> Tensor:
        """Tells which objects an expression's attributes admit.

        Args:
            expressions: (E,) int64 expression rows.
            objects: (N,) int64 object rows.

        Returns:
            (E, N) bool.
        """
        colour, size = self.spec_colour[expressions, None], self.spec_size[expressions, None]
        admitted = self.spec_classes[expressions][:, self.classes[objects]]
        admitted = admitted & ((colour < 0) | (colour == self.colours[objects]))
        return admitted & ((size < 0) | (size == self.sizes[objects]))


def device_facts(data: SceneData, table: TokenTable, device: torch.device) -> Facts:
    """Moves the tables to the training device.

    Args:
        data: The scenes.
        table: Encodes their texts.
        device: Where the model and the views are.

    Returns:
        The facts.
    """

    def put(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(device)

    objects, expressions = data.objects, data.expressions
    return Facts(
        classes=put(objects.classes),
        colours=put(objects.colours),
        sizes=put(objects.sizes),
        occluded=put(objects.visible_fraction < MIN_VISIBLE_FRACTION),
        spec_classes=put(expressions.spec_classes),
        spec_colour=put(expressions.spec_colour),
        spec_size=put(expressions.spec_size),
        kind=put(expressions.kind),
        tokens=table.encode(data.texts).to(device),
        text=put(expressions.text),
        phrase=put(expressions.phrase),
    )


def sample_expressions(data: SceneData, scenes: Ints, random: np.random.Generator) -> tuple[Ints, Ints]:
    """Draws expressions of every scene, kinds by `KIND_SHARES`.

    Args:
        data: The scenes.
        scenes: (B,) int64 scene rows.
        random: Random source.

    Returns:
        Rows of expressions, (E,) int64, and for each the position of its scene in `scenes`, (E,) int64.
    """
    shape = (len(scenes), EXPRESSIONS_PER_SCENE)
    group = scenes[:, None] * len(KINDS) + random.choice(len(KINDS), size=shape, p=KIND_SHARES)
    start = data.expressions.start[group]
    count = data.expressions.start[group + 1] - start
    rows = start + (random.random(shape) * count).astype(np.int64)
    owner = np.broadcast_to(np.arange(len(scenes))[:, None], shape)
    return rows[count > 0], owner[count > 0]


def disturb_tokens(tokens: Tensor, vocabulary: int, dropped: Tensor, generator: torch.Generator) -> Tensor:
    """Replaces words by the unknown word and sometimes inserts one, so that unseen words are no surprise.

    Args:
        tokens: (E, L) int64 rows of the token table, the last column free.
        vocabulary: Rows of the token table; the last two are start and end of text.
        dropped: (E, vocabulary) bool, the words each expression loses.
        generator: Random source on the tokens' device.

    Returns:
        (E, L) int64.
    """
    count, length = tokens.shape
    tokens = torch.where(dropped.gather(1, tokens) & (tokens < vocabulary - 2), 0, tokens)
    draw = torch.rand((2, count, 1), generator=generator, device=tokens.device)
    end = tokens.argmax(1, keepdim=True)
    place = 1 + (draw[0] * end).long()
    place = torch.where(draw[1] < WORD_INSERTION, place.clamp(max=length - 1), length)
    column = torch.arange(length, device=tokens.device)[None]
    shifted = tokens.gather(1, column - (column > place).long())
    return torch.where(column == place, 0, shifted)


class ClipLoss:
    """The training loss: choosing among the masks of a scene, and attributes against all masks of the batch."""

    def __init__(
        self, model: CLIP, data: SceneData, views: ViewTensors, table: TokenTable, scenes_per_step: int
    ) -> None:
        """Binds model and data.

        Args:
            model: The model under training, its token table compact.
            data: Training scenes.
            views: Their views, on the model's device.
            table: The token table's rows.
            scenes_per_step: Scenes a step.
        """
        self._model, self._data, self._views = model, data, views
        self._vocabulary = len(table)
        self._facts = device_facts(data, table, views.device)
        self._eligible = np.flatnonzero(np.diff(data.objects.start) > 0)
        self._scenes = min(scenes_per_step, len(self._eligible))

    def __call__(self, random: Randomness) -> dict[str, Tensor]:
        """Draws a batch and computes its losses.

        Args:
            random: The step's random sources.

        Returns:
            Scalars: loss, its parts (choice, batch, reverse) and the logit scale.
        """
        device = self._views.device
        scenes = random.host.choice(self._eligible, self._scenes, replace=False)
        chosen = self._views.choose(scenes, random.host)
        object_rows = chosen.object_rows
        expression_rows, expression_owner = sample_expressions(self._data, scenes, random.host)
        order = np.argsort(object_rows)
        targets = order[np.searchsorted(object_rows[order], self._data.expressions.target[expression_rows])]
        rows = torch.from_numpy(object_rows).to(device)
        expressions = torch.from_numpy(expression_rows).to(device)
        target = torch.from_numpy(targets).to(device)
        asked = torch.from_numpy(expression_owner).to(device)

        inputs = self._views.inputs(chosen, self._model.visual, random.device, JITTER)
        owner = inputs.owner
        # On a CPU the fused attention's gradient is slow in bfloat16.
        backends = [SDPBackend.MATH] if device.type == "cpu" else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
        with autocast(device), sdpa_kernel(backends):
            features = visual_features(self._model, inputs)
            texts = self._text_features(expressions, random.device)
        scale = self._model.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
        logits = scale * F.normalize(texts, dim=-1) @ F.normalize(features, dim=-1).T

        kind = self._facts.kind[expressions]
        weight = torch.where(kind == KINDS.index("relation"), RELATION_WEIGHT, 1.0)
        in_scene = logits.masked_fill(asked[:, None] != owner[None], NEVER)
        choice = (F.cross_entropy(in_scene, target, reduction="none") * weight).sum() / weight.sum()

        # From the host's tables: a boolean index would make the host wait for the device.
        is_attribute = self._data.expressions.kind[expression_rows] == KINDS.index("attribute")
        attribute = torch.from_numpy(np.flatnonzero(is_attribute)).to(device)
        fits = F.pad(self._facts.fits(expressions[attribute], rows), (0, logits.shape[1] - len(rows)))
        occluded = F.pad(self._facts.occluded[rows], (0, logits.shape[1] - len(rows)))
        unsure = fits & occluded[None]
        unsure[torch.arange(len(unsure), device=device), target[attribute]] = False
        across = logits[attribute].masked_fill(unsure, NEVER)
        batch = _multi_positive(across, fits & ~unsure)
        objects = across[:, : len(rows)].T
        reverse = _multi_positive(objects, (fits & ~unsure)[:, : len(rows)].T)
        loss = choice + 0.5 * batch + 0.25 * reverse
        parts = {"choice": choice, "batch": batch, "reverse": reverse, "scale": scale}
        return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}

    def _text_features(self, expressions: Tensor, generator: torch.Generator) -> Tensor:
        facts, vocabulary = self._facts, self._vocabulary
        count, device = len(expressions), expressions.device
        whole = torch.rand(count, generator=generator, device=device) < PHRASE_IS_SENTENCE
        text = facts.text[expressions]
        phrase = torch.where(whole, text, facts.phrase[expressions])
        dropped = torch.rand((count, vocabulary), generator=generator, device=device) < WORD_DROPOUT
        sentences, phrases = (
            disturb_tokens(facts.tokens[row], vocabulary, dropped, generator) for row in (text, phrase)
        )
        return text_features(self._model, sentences, phrases)


def _multi_positive(logits: Tensor, positive: Tensor) -> Tensor:
    """Averages, over rows with a positive, the mean negative log-probability of the row's positives."""
    log_share = (logits - logits.logsumexp(1, keepdim=True)).masked_fill(~positive, 0.0)
    count = positive.sum(1)
    return -(log_share.sum(1) / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)
