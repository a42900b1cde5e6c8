"""What a network is trained from: the mentions and the KB that a recipe names, as arrays.

In: a recipe, a KB, its encoders and a folder for what is encoded.  Out: train and validation mentions, entities, the
shape of the network, and the facts that all of it hangs on.  What a recipe trains without is withheld here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from localmel.encode.kb_images import KbImages, index_images, load_images
from localmel.encode.kb_vectors import KbVectors, index_kb, load_vectors
from localmel.encode.mention_inputs import PictureVectors
from localmel.encode.space import ImageEncoder, Space, TextEncoder
from localmel.errors import BadInput, CorruptArtifact, UsageError
from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.kb_triples import KbTriples, no_triples
from localmel.matchers.kgmel.settings import FusionSettings
from localmel.records import Split
from localmel.store import progress
from localmel.training.data import Datasets, EncodedSplit, encoded_splits, read_datasets
from localmel.training.pictures import encoded_pictures
from localmel.training.recipe import Recipe

if TYPE_CHECKING:
    from localmel.matchers.kgmel.inputs import EntityVectors, MentionVectors
    from localmel.matchers.train.loop import Together

WIDTH = 384
"Length of fused vectors, where a recipe does not say."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """Everything a network is trained from."""

    train: MentionVectors
    validation: MentionVectors
    validation_sets: Mapping[str, Any]  # name of the dataset -> (m,) bool
    entities: EntityVectors
    fusion: FusionSettings
    image_space: Space | None
    "Of the pictures; None where none are looked at."
    made_from: Mapping[str, Any]
    dropped: int
    "Validation mentions that were left out because train has them."


def prepare(
    recipe: Recipe,
    kb: KnowledgeBase,
    encoder: TextEncoder,
    folder: Path,
    together: Together,
    *,
    images: ImageEncoder | None = None,
) -> Prepared:
    """Read and encode what the recipe names, the KB's texts included; what stands in `folder` is taken from there.

    With `images` the pictures of mentions and entities are encoded too (those of mentions in `folder`.pictures), unless
    the recipe trains without.  Raises UsageError where it is to withhold pictures and nothing would look at them."""
    if "image" in recipe.without and images is None:
        fact = f"a network cannot be trained without image: {encoder.space.name} looks at none"
        raise UsageError(fact, hint="leave --without image out")
    datasets = read_datasets(
        recipe.data, recipe.datasets, drop=recipe.drop_leaked, most=(recipe.mentions, recipe.validation_mentions)
    )
    seen: KbImages | None = None
    with together.leader_first():
        texts = encoded_texts(recipe, datasets, kb, encoder, folder, visible_text=recipe.visible_text)
        train, validation, facts = texts.train, texts.validation, texts.facts
        if images and "image" not in recipe.without:
            seen = images_of(kb, texts.packed, images, together)
            pictures = folder.with_name(f"{folder.name}.pictures")
            *both, more = encoded_pictures(datasets, images, pictures)
            train = _with_pictures(train, datasets.train, both[0])
            validation = _with_pictures(validation, datasets.validation, both[1])
            facts = {**facts, **more, "kb_pictures": seen.state}
    tell_left_out(datasets, texts.train)
    return _prepared(recipe, datasets, train, validation, texts.packed, texts.vectors, seen, facts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedTexts:
    """A KB's own vectors, and both splits with their golds and the bearers of their names."""

    packed: PackedKb
    vectors: KbVectors
    train: EncodedSplit
    validation: EncodedSplit
    facts: Mapping[str, Any]


def encoded_texts(
    recipe: Recipe,
    datasets: Datasets,
    kb: KnowledgeBase,
    encoder: TextEncoder,
    folder: Path,
    *,
    visible_text: float,
) -> EncodedTexts:
    """What every network needs of texts; what stands in `folder` is taken from there."""
    packed, vectors = _vectors_of(kb, encoder)
    train, validation, facts = encoded_splits(
        datasets,
        kb,
        packed,
        encoder,
        folder,
        visible_text=visible_text,
    )
    return EncodedTexts(packed=packed, vectors=vectors, train=train, validation=validation, facts=facts)


def tell_left_out(datasets: Datasets, train: EncodedSplit) -> None:
    """How many mentions are not validated and not trained on."""
    if datasets.dropped:
        progress.note(f"{datasets.dropped:,} validation mentions were left out, because train has their sentence")
    if outside := int((train.vectors.gold < 0).sum()):
        n = len(train.vectors)
        progress.note(f"{outside:,} of {n:,} train mentions have no gold in the KB and are not trained on")


def golds_trained_on(recipe: Recipe, train: EncodedSplit) -> Any:
    """(m,) positions; -1 also for the mentions of the fold that the recipe leaves out."""
    if recipe.fold is None:
        return train.vectors.gold
    own, of = recipe.fold
    return np.where(train.sentence % of == own, -1, train.vectors.gold)


def _vectors_of(kb: KnowledgeBase, encoder: TextEncoder) -> tuple[PackedKb, KbVectors]:
    """The KB's own vectors, made or brought up to date where need be; fused ones are not needed for training."""
    try:
        return load_vectors(kb, encoder.space)
    except (BadInput, CorruptArtifact):
        index_kb(kb, encoder)
        return load_vectors(kb, encoder.space)


def images_of(kb: KnowledgeBase, packed: PackedKb, images: ImageEncoder, together: Together) -> KbImages:
    """The vectors of the KB's pictures.  The first process looks whether a picture has changed, the others do not."""
    if together.leads:
        found = index_images(kb, packed, images)
        if note := found.note():
            progress.note(note)
    return load_images(kb, packed, images.image_space)


def _with_pictures(encoded: EncodedSplit, split: Split, found: PictureVectors) -> EncodedSplit:
    named = sum(mention.image is not None for mention in split.mentions)
    if lost := named - int(found.there.sum()):
        progress.note(f"{lost:,} of {named:,} {split.name} mentions name a picture that cannot be read")
    return replace(encoded, vectors=replace(encoded.vectors, image=found.vectors, has_image=found.there))


def _prepared(
    recipe: Recipe,
    datasets: Datasets,
    train: EncodedSplit,
    validation: EncodedSplit,
    packed: PackedKb,
    vectors: KbVectors,
    seen: KbImages | None,
    facts: Mapping[str, Any],
) -> Prepared:
    from localmel.matchers.kgmel.inputs import EntityVectors, NoTriples

    space = vectors.space
    mentions, checked = replace(train.vectors, gold=golds_trained_on(recipe, train)), validation.vectors
    entity_text = vectors.entities
    if "text" in recipe.without:
        blank = np.zeros(1, np.float16)
        entity_text = np.broadcast_to(blank, vectors.entities.shape)
        mentions, checked = (
            replace(one, text=np.broadcast_to(blank, (len(one), space.width))) for one in (mentions, checked)
        )
    kind = KbTriples
    if "triples" in recipe.without:
        kind = NoTriples
        mentions, checked = (replace(one, triples=no_triples(len(one), space.width)) for one in (mentions, checked))
    return Prepared(
        train=mentions,
        validation=checked,
        validation_sets={name: validation.dataset == number for number, name in enumerate(datasets.names)},
        entities=EntityVectors(
            text=entity_text,
            triples=kind(packed, vectors),
            image=seen.vectors if seen else None,
            has_image=seen.there if seen else None,
        ),
        fusion=FusionSettings(
            text_width=space.width,
            triple_width=space.width,
            image_width=seen.space.width if seen else 0,
            width=WIDTH if recipe.width is None else recipe.width,
            gate="gate" not in recipe.without,
        ),
        image_space=seen.space if seen else None,
        made_from={**facts, **recipe.withheld()},
        dropped=datasets.dropped,
    )
