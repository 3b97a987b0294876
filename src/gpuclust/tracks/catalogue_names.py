"""Names in the generated catalogue: ids, artists and titles, composed by column.

Everything here is invented or an everyday word: surnames are syllables put together, bands are an adjective
and a plural. Any likeness to a real artist or song is chance.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]


class Style(NamedTuple):
    """A pattern of names: one of ``left`` followed by one of ``right``, used for ``weight`` % of the names."""

    weight: int
    left: list[str]
    right: list[str]


def _split(text: str) -> list[str]:
    """Split words at bars if there are any, else at white space."""
    return [word.strip() for word in text.split("|")] if "|" in text else text.split()


def _after_space(words: list[str] | str) -> list[str]:
    return [f" {word}" for word in (_split(words) if isinstance(words, str) else words)]


GIVEN = _split(
    """
    Ada Aino Alba Amara Amir Anaïs Anika Anouk Arlo Asha Åsa Astrid Aurelio Bao Beatriz Benno Björn Bram
    Brisa Caleb Camille Carmen Çağla Cosima Dagny Dalia Dario Davor Delia Đorđe Edda Eero Elif Elio Elsa
    Emeka Esme Étienne Ezra Fadila Faye Felix Fiona Flora Freya Gaspar Gemma Gideon Greta Gustavo Hana
    Hugo Ida Ilse Imani Inés Ingrid Iris Ivo Jada Jasper Joana Jonas Jovan Jules Jürgen Kaito Kamila
    Kasper Keiko Kirsten Kofi Lara Leila Leonie Lev Lina Linus Livia Lorenz Lucia Łucja Ludo Luz Mads
    Maeve Magda Maite Malik Manon Mara Marek Mateo Maya Mei Milan Mina Mirela Moses Nadia Naomi Nils
    Nina Noa Noël Nora Oksana Olga Omar Oona Orla Oscar Otto Paloma Pascal Petra Pia Quentin Rafael
    Rania Rhea Rosa Ruben Runa Sabine Salma Samir Sanna Saskia Selma Sigrid Silas Simone Sofía Søren
    Stella Sven Talia Tamar Tariq Tess Theo Tilda Tobias Tomás Uma Ursula Vera Viggo Viola Wanda Wilma
    Xenia Yara Yusuf Yvette Zadie Zoë Zora
    """
)

SURNAMES = [
    a + b + c
    for b, c, a in product(
        _split("a e i o an en in on ar er is ol"),
        _split("ton ley well mann vic dez sen wick retti ski dale ford gren dura"),
        _split("Bar Cal Dor El Far Gal Hal Ir Jor Kel Lan Mar Nor Or Per Quin Ros Sel Tor Ul Var Wen Yar Zel"),
    )
]

ADJECTIVES = _split(
    """
    Amber Ancient Autumn Bitter Blue Borrowed Brave Bright Broken Burning Calm Careless Cobalt Cold
    Copper Crooked Crystal Dark Daydream Deep Distant Dusty Early Eastern Electric Empty Endless Faded
    Faithful Fallen Fearless Fever Final First Floating Foreign Forgotten Fragile Frozen Gentle Giant
    Gilded Glass Golden Green Half-Lit Heavy Hidden Hollow Holy Honest Hungry Indigo Inner Iron Ivory
    Late Lazy Liquid Little Lonely Lost Loud Lucky Lunar Magnetic Marble Midnight Morning Neon Nervous
    New Northern Odd Old Open Orange Painted Pale Paper Patient Plastic Polar Private Purple Quiet Rapid
    Reckless Red Restless Rising Rusty Sacred Salt Scarlet Second Secret Shallow Shining Silent Silver
    Simple Sleeping Slow Small Solar Solid Southern Static Steady Still Stolen Strange Sudden Summer
    Sunday Sweet Tall Tender Thin Tidal Tiny True Twisted Unknown Velvet Violet Warm Wasted Western
    White Wicked Wild Winter Wooden Yellow Young
    """
)

NOUNS = _split(
    """
    Anchor Animal Answer Arrow Avenue Balcony Ballroom Bell Bicycle Bird Blossom Boat Bone Border Bottle
    Bridge Brother Building Candle Canyon Carnival Castle Cathedral Chapel Circle Circus City Cloud
    Coast Colour Comet Compass Corner Country Coyote Crown Curtain Dancer Daughter Desert Diamond Dog
    Door Dream Drum Elevator Ember Engine Feather Fence Field Fire Flag Flame Flower Forest Fox Fountain
    Friend Garden Ghost Glacier Guitar Harbour Harvest Heart Highway Hill Horse Hotel House Hunter
    Hurricane Island Jewel Journey Kingdom Kite Ladder Lake Lantern Letter Lighthouse Line Lion Machine
    Magnet Map Mask Meadow Memory Mirror Moment Monument Moon Motel Mountain Museum Needle Neighbour
    Night Ocean Orchard Owl Paradise Parade Passenger Pattern Photograph Piano Picture Pilot Planet
    Postcard Prayer Prism Promise Queen Question Radio Railway Rain Raven Reason Rider Ring River Road
    Robot Rocket Room Rose Runner Satellite Season Seed Shadow Shelter Ship Shore Signal Sister Skyline
    Snowfall Soldier Song Spark Station Statue Stone Storm Story Stranger Street Summer Sun Swimmer
    Telephone Temple Theatre Thunder Tiger Tower Town Traffic Train Traveller Tunnel Valley Voice Voyage
    Wall Water Wave Weekend Whale Wheel Whisper Window Winter Wire Wolf Wonder
    """
)


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2] not in "aeo":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch")) else "s")


_PLURALS = [_plural(noun) for noun in NOUNS if noun != "Wolf"] + ["Wolves"]

_PHRASES = _split(
    """
    Waiting for|Running to|Dreaming of|Chasing|Leaving|Back to|Beyond|Under|Over|Behind|Inside|
    Talking to|Dancing with|Letters to|Home to|Far from|Closer to|Before|After|Until|Beside|
    Between Us and|Nothing but|All about|Goodbye to|Return to|Meet Me by|Hold|Follow|Don't Wake|
    Somebody Stole|I Remember|Sing for|Lost in|Built from|Down by|Across|We Are|Made of|No More
    """
)

TAILS = [""] * 110 + _after_space(
    """
    at Dawn|at Dusk|at Midnight|in the Rain|in Bloom|in Blue|in Colour|in Slow Motion|in the Dark|
    in the Distance|in Winter|in July|on Fire|on the Wall|on Sunday|on the Water|by the Sea|
    by Moonlight|for Two|for You|for No One|for a While|from Nowhere|from Above|of Mine|of Yesterday|
    of the Valley|of the North|of Glass|of Gold|to Nowhere|to the Sun|Tonight|Tomorrow|Again|Forever|
    Away|Alone|Without You|With Me|Around Me|Under Water|After Hours|Before Sunrise|Down South|Up High|
    Once More|Come Home|Go Slow|Stay Awake|(Interlude)|(Part I)|(Part II)|(Reprise)|No. 1|No. 2|No. 3|
    and Me|and You|and the Sea
    """
)

ARTISTS = [
    Style(60, GIVEN, _after_space(SURNAMES)),
    Style(
        16,
        ["The " + word for word in ADJECTIVES] + ADJECTIVES,
        _after_space(_PLURALS),
    ),
    Style(9, GIVEN, [f" & the {word}" for word in _PLURALS]),
    Style(
        10,
        SURNAMES,
        _after_space("Trio|Quartet|Quintet|Ensemble|Orchestra|Collective|Band|Brothers|Sisters|Project|Sound"),
    ),
    Style(5, ["DJ ", "MC ", "", "Young ", "Doña ", "Señor ", "Mlle ", "Big "], SURNAMES),
]

TITLES = [
    Style(38, ADJECTIVES, _after_space(NOUNS)),
    Style(24, NOUNS, [f" {word} {noun}" for word in ("of the", "and", "in the", "for a") for noun in NOUNS[::4]]),
    Style(20, _PHRASES, [f" the {noun}" for noun in NOUNS]),
    Style(7, NOUNS + ADJECTIVES, [""]),
    Style(8, ["Dear", "Oh", "Goodbye", "Hey", "Without", "Calling", "For", "Miss", "Sweet"], _after_space(GIVEN)),
    Style(
        3,
        _split("Corazón de|Été à|Noche de|Nächte in|Canção de|Песня о|Ljus över|Melodia z|Île de|Ночь в|Gece ve|夜の"),
        _after_space("Málaga|Łódź|Genève|Århus|São Luís|Ávila|Zürich|İzmir|Besançon|Östersund|Białystok|海"),
    ),
]

_NOTHING = pa.scalar("", pa.large_string())
SUFFIXES = ["", " (Live)", " - Remastered", " - Instrumental"]


class _Words(NamedTuple):
    """The styles of a kind of name, one entry each; `left` and `right` contain the words of all styles in sequence."""

    until: Floats
    left: Any
    left_start: Ints
    left_size: Ints
    right: Any
    right_start: Ints
    right_size: Ints


@lru_cache(maxsize=2)
def _words(kind: str) -> _Words:
    styles = {"artist": ARTISTS, "title": TITLES}[kind]
    weights = np.array([style.weight for style in styles], dtype=float)
    left_size = np.array([len(style.left) for style in styles])
    right_size = np.array([len(style.right) for style in styles])
    return _Words(
        until=weights.cumsum() / weights.sum(),
        left=_strings(word for style in styles for word in style.left),
        left_start=left_size.cumsum() - left_size,
        left_size=left_size,
        right=_strings(word for style in styles for word in style.right),
        right_start=right_size.cumsum() - right_size,
        right_size=right_size,
    )


def _strings(words: Iterable[str]) -> Any:
    return pa.array(list(words), pa.large_string())


def artist_names(artist: Ints, *, seed: int) -> Any:
    """The name of each artist number, as an Arrow array of strings.

    Artist numbers are dealt to the styles in turn, and inside a style step through its pairs of words by a prime: no
    two of the first 300,000 artists share a name.
    """
    words = _words("artist")
    turn, number = artist % 100, artist // 100
    upto = np.round(words.until * 100).astype(np.int64)
    style = np.searchsorted(upto, turn, side="right")
    weights = np.diff(upto, prepend=0)
    number = number * weights[style] + turn - (upto - weights)[style]
    left_size, pairs = words.left_size[style], (words.left_size * words.right_size)[style]
    start = int(mix(np.array([seed], dtype=np.uint64))[0] >> np.uint64(40))
    pair = (start + number * 15_485_863) % pairs
    left = words.left.take(pa.array(words.left_start[style] + pair % left_size))
    right = words.right.take(pa.array(words.right_start[style] + pair // left_size))
    return pc.binary_join_element_wise(left, right, _NOTHING)


def titles(
    uniforms: Floats, *, live: NDArray[np.bool_], old: NDArray[np.bool_], instrumental: NDArray[np.bool_]
) -> Any:
    """Titles from five uniform numbers each, (5, rows); some are marked as live, remastered or instrumental."""
    by_style, by_left, by_right, by_tail, by_suffix = uniforms
    words = _words("title")
    style = np.searchsorted(words.until, by_style)
    left = words.left_start[style] + (words.left_size[style] * by_left**1.3).astype(np.int64)
    right = words.right_start[style] + (words.right_size[style] * by_right**1.3).astype(np.int64)
    tails = _strings(TAILS)
    suffix = np.select([live & (by_suffix < 0.6), old & (by_suffix < 0.3), instrumental & (by_suffix < 0.1)], [1, 2, 3])
    return pc.binary_join_element_wise(
        words.left.take(pa.array(left)),
        words.right.take(pa.array(right)),
        tails.take(pa.array((len(TAILS) * by_tail).astype(np.int64))),
        _strings(SUFFIXES).take(pa.array(suffix)),
        _NOTHING,
    )


def mix(x: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): one to one on 64 bits."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@lru_cache(maxsize=1)
def _digits() -> NDArray[np.uint16]:
    """The 3,844 pairs of base-62 digits, two ASCII bytes each."""
    alphabet = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return np.frombuffer(b"".join(bytes((a, b)) for a in alphabet for b in alphabet), dtype=np.uint16)


def track_ids(first: int, n_rows: int, *, seed: int) -> Any:
    """22 base-62 characters for each row starting at ``first``: unique, because half of them are a bijection of the row."""
    key = mix(mix(np.array([seed], dtype=np.uint64)))
    unique = mix(np.arange(first, first + n_rows, dtype=np.uint64) ^ key)
    other = mix(unique ^ key)
    text = np.empty((n_rows, 11), dtype=np.uint16)
    # 62**10 < 2**64 < 22 * 62**10: what five pairs of digits leave of `unique`, below 22, shares the first pair.
    left = _write_pairs(text[:, 1:6], unique)
    text[:, 0] = _digits()[left + np.uint64(22) * (other % np.uint64(174))]
    _write_pairs(text[:, 6:], other // np.uint64(174))
    offsets = np.arange(0, 22 * n_rows + 1, 22, dtype=np.int64)
    return pa.LargeStringArray.from_buffers(n_rows, pa.py_buffer(offsets), pa.py_buffer(text))


def _write_pairs(text: NDArray[np.uint16], numbers: Hashes) -> Hashes:
    """Write five pairs of base-62 digits of each number; return the quotients."""
    base = np.uint64(62**2)
    for column in range(5):
        numbers, whole = numbers // base, numbers
        text[:, column] = _digits()[whole - numbers * base]
    return numbers
