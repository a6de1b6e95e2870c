"""Name pools of the synthetic households: invented names, and real given names with their pet forms.

Pools of different ``pool`` numbers share no name, so rules tuned on one cannot have learnt another.
"""

from __future__ import annotations

import numpy as np

from hiexchange.matching import normalize

_ONSETS = "b br c ch cl d dr f fl g gr h j k kl l m n p pr qu r s sh sl st t th tr v w z".split()
_VOWELS = "a e i o u ai ea ie oo ou".split()
_CODAS = "b ck d f g k l ll m n nd nt p r rd rn s sh st t th x".split()

SIMILAR_TWINS = """jayden kayden;jaylen jaylin;aiden jaiden;ella bella;mia maya;emma emily;madison madeline;ethan evan;
taylor tyler;kayla kaylee;brandon brendan;daniel david;jacob joshua;isabella isabelle;anna hannah;maria mariah;julia julie;
christina christine;eric derek;hailey bailey;aaron darren;marie maria;landon brandon;ariana adriana;kara tara;
christian christopher;faith fay;keira keila;leah lea;jasmine jazlyn;ronan rowan;alana elana;carla karly;joan joanna;
dylan kylan;lila lilah;rory cory;shawn shane;terra tessa;mason jason""".replace("\n", "")
"""Given names parents really choose for twins; half go to even pools, half to odd ones."""


def invented(rng: np.random.Generator, count: int, *, pool: int, syllables: int) -> list[str]:
    """Return ``count`` distinct pronounceable names; the last coda tells the pool, so pools are disjoint."""
    codas = _CODAS[pool % 2 :: 2]
    names: dict[str, None] = {}
    while len(names) < count:
        draws = [
            (rng.integers(len(_ONSETS), size=count), rng.integers(len(_VOWELS), size=count)) for _ in range(syllables)
        ]
        ends = rng.integers(len(codas), size=count)
        for row in range(count):
            stem = "".join(_ONSETS[onset[row]] + _VOWELS[vowel[row]] for onset, vowel in draws)
            names.setdefault(stem + codas[ends[row]])
    return list(names)[:count]


def given_with_forms(pool: int) -> dict[str, list[str]]:
    """Return real given names and their pet forms, those of this pool."""
    forms: dict[str, list[str]] = {}
    given = {root for roots in normalize.nicknames().values() for root in roots if root[0] != "="}
    for form, roots in sorted(normalize.nicknames().items()):
        for root in roots:
            if root[0] != "=" and form not in given and sum(map(ord, root)) % 2 == pool % 2:
                forms.setdefault(root, []).append(form)
    return forms


def similar_twins(pool: int) -> list[tuple[str, str]]:
    """Return pairs of similar names for twins, those of this pool."""
    pairs = [tuple(pair.split()) for pair in SIMILAR_TWINS.split(";")]
    return [(pair[0], pair[1]) for index, pair in enumerate(pairs) if index % 2 == pool % 2]


def zipf(count: int, exponent: float) -> np.ndarray:
    """Return cumulative probabilities of ranks 1 to ``count`` with weight rank**-exponent."""
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    return np.asarray(np.cumsum(weights / weights.sum()))


def draw(rng: np.random.Generator, cumulative: np.ndarray, size: int) -> np.ndarray:
    """Return ``size`` ranks drawn from cumulative probabilities."""
    return np.minimum(np.searchsorted(cumulative, rng.random(size)), len(cumulative) - 1)


def mistyped(rng: np.random.Generator, text: str) -> str:
    """Return ``text`` with one letter deleted, inserted, transposed or substituted."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    if len(text) < 2:
        return text + letters[rng.integers(26)]
    for _ in range(9):
        at, kind = int(rng.integers(len(text))), int(rng.integers(4))
        letter = letters[rng.integers(26)]
        changed = (
            text[:at] + text[at + 1 :],
            text[:at] + letter + text[at:],
            text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :],
            text[:at] + letter + text[at + 1 :],
        )[kind]
        if changed != text:
            return changed
    return text + "e"
