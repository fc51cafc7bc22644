"""Every answer of an accuracy run, one line of JSON a sentence, from which an interrupted run goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from risbench.data.refer import Ref
from risbench.options import plain
from risbench.quality.answers import Answer
from risengine.errors import InputError
from risengine.output import write_atomically

__all__ = ["AnswerLog", "ImageOutcome", "SentenceRecord", "record_sentences"]


@dataclass(frozen=True)
class SentenceRecord:
    """One line: a sentence and the answer to it.

    Attributes:
        split: Split it belongs to.
        image_id: Its image.
        ref_id: Its object's ref.
        ann_id: Its object's annotation.
        sent_id: Its number.
        text: The expression.
        iou: Of the chosen proposal with the object, in [0, 1].
        answer: All that is known of the answer.
        ablation: Name of the variant that answered; None for the engine itself.
    """

    split: str
    image_id: int
    ref_id: int
    ann_id: int
    sent_id: int
    text: str
    iou: float
    answer: Answer
    ablation: str | None = None


@dataclass(frozen=True)
class ImageOutcome:
    """All that was found on one image.

    Attributes:
        proposals: Number of proposals.
        point_ious: SAM's best-of-three IoU for each object.
        sentences: The answers, those of variants included.
    """

    proposals: int
    point_ious: tuple[float, ...]
    sentences: tuple[SentenceRecord, ...]


@dataclass(frozen=True)
class _Finished:
    """The line behind an image's sentences."""

    split: str
    finished_image: int
    proposals: int
    point_ious: tuple[float, ...]


@dataclass
class AnswerLog:
    """Outcomes by split and image, written to a file as they come where there is one.

    Attributes:
        path: The file; None to keep outcomes in memory alone.
        conditions: What every run of the file must have in common, its first line.
        outcomes: What is known.
    """

    path: Path | None = None
    conditions: Mapping[str, object] = field(default_factory=dict)
    outcomes: dict[tuple[str, int], ImageOutcome] = field(default_factory=dict)

    @property
    def sentences(self) -> Iterator[SentenceRecord]:
        """All answers."""
        return (record for outcome in self.outcomes.values() for record in outcome.sentences)

    def resume(self) -> None:
        """Reads what an earlier run left, without an unfinished image; begins the file where there is none.

        Raises:
            InputError: The file is of a run under other conditions.
        """
        if self.path is None:
            return
        header = msgspec.json.encode(self.conditions, enc_hook=plain)
        if self.path.is_file() and (lines := self.path.read_bytes().splitlines()):
            if lines[0] != header:
                raise InputError(
                    f"{self.path} is of another bundle, data set or setting: its first line is not this run's. Name "
                    "another file."
                )
            self._read(lines[1:])
        known = b"".join(_lines(*where, outcome) for where, outcome in self.outcomes.items())
        write_atomically(self.path, lambda file: file.write(header + b"\n" + known))

    def add(self, split: str, image_id: int, outcome: ImageOutcome) -> None:
        """Takes an image's outcome in, and writes it."""
        self.outcomes[split, image_id] = outcome
        if self.path is not None:
            with self.path.open("ab") as file:
                file.write(_lines(split, image_id, outcome))

    def _read(self, lines: Sequence[bytes]) -> None:
        pending: list[SentenceRecord] = []
        for line in lines:
            try:
                finished = msgspec.json.decode(line, type=_Finished)
            except msgspec.DecodeError:
                try:
                    pending.append(msgspec.json.decode(line, type=SentenceRecord))
                except msgspec.DecodeError:
                    return  # the line that was being written when the run ended
                continue
            outcome = ImageOutcome(finished.proposals, finished.point_ious, tuple(pending))
            self.outcomes[finished.split, finished.finished_image] = outcome
            pending = []


def record_sentences(
    split: str, refs: Sequence[Ref], answers: Sequence[Answer], ablation: str | None = None
) -> list[SentenceRecord]:
    """Puts answers beside the sentences they are for.

    Args:
        split: The split.
        refs: Refs of one image whose objects are visible.
        answers: To all their sentences, in order.
        ablation: The variant that answered.
    """
    asked = [(ref, sentence) for ref in refs for sentence in ref.sentences]
    return [
        SentenceRecord(
            split=split,
            image_id=ref.image_id,
            ref_id=ref.ref_id,
            ann_id=ref.ann_id,
            sent_id=sentence.sent_id,
            text=sentence.raw,
            iou=answer.overlap.iou,
            answer=answer,
            ablation=ablation,
        )
        for (ref, sentence), answer in zip(asked, answers, strict=True)
    ]


def _lines(split: str, image_id: int, outcome: ImageOutcome) -> bytes:
    finished = _Finished(split, image_id, outcome.proposals, outcome.point_ious)
    return b"".join(msgspec.json.encode(line, enc_hook=plain) + b"\n" for line in (*outcome.sentences, finished))
