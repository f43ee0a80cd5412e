"""Short stories from templates: a hero, a friend, a lost thing, and pronouns that refer back to them.

Slots are drawn by Zipf's law, so there are frequent and rare words as in real text, and a hero keeps
name, pronoun and belongings through a story, so a model that carries context predicts better than one
that counts pairs. Thousands of distinct stories keep teaching over some hundred thousand tokens; it is
still far simpler than prose.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from olmix.core.seeds import generator


def words(text: str) -> tuple[str, ...]:
    """The words of `text`, most frequent first."""
    return tuple(text.split())


GIRLS = words(
    "Mia Lily Anna Rosa Nora Ella Clara Ivy Tara Zoe Maya Lena Ruth Alma Greta Nina Pearl Wanda Iris "
    "Hazel Olga Vera Petra Sonia Daisy Fern Kira Bella Amira Yuki Hana Leila"
)
BOYS = words(
    "Tom Ben Max Leo Sam Jack Finn Omar Noah Eric Paul Hugo Otto Felix Amir Ravi Ivan Carl Dylan "
    "Simon Peter Lucas Theo Victor Boris Hector Niko Kenji Malik Pedro Bruno Edgar"
)
_WORDS: dict[str, tuple[str, ...]] = {
    "animal": words(
        "dog cat bird rabbit frog mouse horse duck fox bear goat hen sheep turtle squirrel owl pony "
        "beaver hedgehog crow donkey otter snail badger goose parrot lizard swan crab mole"
    ),
    "thing": words(
        "ball book kite hat key boat doll drum cup box coat bell lamp bike ring map flute basket "
        "ladder mirror blanket bucket candle clock puppet shovel scarf lantern compass whistle "
        "necklace hammer pillow wagon button feather marble telescope trumpet umbrella violin teapot "
        "spoon crown rope purse sled helmet notebook magnet"
    ),
    "place": words(
        "park garden house forest school river barn beach market hill kitchen field village bridge "
        "lake shop cave tower library meadow mill harbor castle orchard station attic cellar island "
        "valley workshop bakery museum stable mountain desert lighthouse swamp theater greenhouse "
        "windmill"
    ),
    "adjective": words(
        "big little old new red pretty soft blue shiny small warm green strange heavy yellow tiny "
        "bright broken wooden golden dusty round quiet purple silver smooth fancy rusty crooked "
        "velvet striped muddy delicate ancient"
    ),
    "mood": words(
        "happy sad tired scared brave kind hungry proud shy curious lonely angry worried calm clever "
        "patient grumpy cheerful nervous gentle honest stubborn thoughtful jealous"
    ),
    "feeling": words("sad tired scared angry worried lonely upset afraid gloomy ashamed hungry cold"),
    "food": words(
        "bread cake soup apples cheese milk honey cookies rice eggs berries carrots pie tea beans "
        "noodles pancakes plums corn potatoes butter walnuts pudding cherries"
    ),
    "weather": (
        "The sun was warm",
        "It was raining",
        "The wind was cold",
        "The sky was blue",
        "Snow fell all night",
        "It was a foggy day",
        "Clouds came from the west",
        "The air smelled of flowers",
        "Thunder rolled far away",
        "The moon was full",
    ),
    "kin": words("mother father grandmother brother sister uncle grandfather aunt teacher neighbor cousin"),
    "hiding": (
        "under the bed",
        "behind the door",
        "in the tall grass",
        "next to a stone",
        "under a tree",
        "in the mud",
        "on the roof",
        "inside an empty barrel",
        "below the stairs",
        "between two rocks",
        "at the bottom of the well",
        "behind the curtain",
    ),
    "doing": (
        "play",
        "run",
        "sing",
        "read",
        "draw",
        "swim",
        "dance",
        "climb",
        "fish",
        "cook",
        "paint",
        "dig",
        "count the stars",
        "build things",
        "tell jokes",
        "ride fast",
        "collect shells",
        "plant seeds",
        "watch the clouds",
        "whistle",
    ),
    "time": (
        "One day",
        "One morning",
        "After lunch",
        "In the evening",
        "The next day",
        "On Sunday",
        "Late at night",
        "Early in spring",
        "That winter",
        "On the last day of summer",
    ),
    "number": words("two three four five six seven eight nine ten twelve"),
}
_ACTS: tuple[tuple[str, ...], ...] = (
    (
        "Once upon a time there was a {mood} {child} named {hero}.",
        "{hero} was a {mood} {child} who lived near the {place}.",
        "There once was a {child} called {hero}, and {he} lived with {his} {kin} by the {place}.",
        "{hero} and {friend} were friends.",
        "In a {adjective} house near the {place} lived a {child} named {hero}.",
        "Long ago, when the {place2} was new, a {mood} {child} named {hero} came to live there.",
        "Everybody in the {place} knew {hero}, the {mood} {child} with the {adjective2} {thing2}.",
    ),
    (
        "{He} liked to {doing} with {his} {adjective} {thing}.",
        "{He} had a {adjective} {thing} that {he} loved very much.",
        "{His} {kin} gave {him} a {adjective} {thing}.",
        "More than anything {he} wanted a {adjective} {thing}.",
        "Every day {he} went to the {place} to {doing}, and {he} always took {his} {adjective} {thing}.",
        "{He} had made a {adjective} {thing} with {his} own hands.",
        "{He} kept {number} {adjective2} stones and a {adjective} {thing} in {his} room.",
    ),
    (
        "{time} {he} went to the {place2} with {friend}.",
        "{time} {hero} met a {animal} in the {place2}.",
        "{time} {he} took the {thing} to the {place2}.",
        "{weather}, so {hero} walked to the {place2} to {doing2}.",
        '{time} {his} {kin} said, "Let us go to the {place2} and {doing2}."',
        "{time} a {adjective2} {animal} came out of the {place2} and looked at {hero}.",
    ),
    (
        "But the {thing} was gone!",
        "But then {he} fell, and the {thing} broke.",
        "A {adjective2} {animal} took the {thing} and ran away.",
        "There {he} lost the {thing}, and {he} could not find it.",
        "{friend} wanted the {thing} too, and they had a fight about it.",
        "The {thing} rolled down the hill and fell into the water.",
        "The wind took the {thing} and carried it over the {place}.",
        "{friend} sat on the {thing} by mistake.",
    ),
    (
        "{hero} was very {feeling}.",
        "{He} began to cry.",
        "{hero} looked {hiding}, but it was not there.",
        '"Where is my {thing}?" {he} asked.',
        "{hero} felt {feeling} and did not want to {doing}.",
        "{He} asked {his} {kin}, but nobody had seen the {thing}.",
        "{He} ran home to {his} {kin} and told the whole story.",
        "For {number} days {he} could not {doing} or eat {food}.",
    ),
    (
        '{friend} saw {him} and said, "Do not be {feeling}. I will help you."',
        "Then {friend} came with {his2} {animal}, and together they looked for the {thing}.",
        'A {mood} {animal} heard {him} and said, "I know where your {thing} is."',
        "{friend} gave {him} some {food} and asked what was wrong.",
        '{His} {kin} smiled and said, "We can look for it in the {place}."',
        '"I am sorry," said {friend}, and {he2} gave {hero} {his2} own {thing2}.',
        "{friend} had an idea. {He2} took a {thing2} and went to the {place} with {hero}.",
        "The {animal} wanted {food}, so {hero} gave it {number} pieces, and it showed {him} the way.",
    ),
    (
        "They looked for a long time and found the {thing} {hiding}.",
        "At last {he} saw the {adjective} {thing} {hiding}.",
        "Soon the {thing} was as good as new.",
        "In the end {friend} found it {hiding} and gave it back to {hero}.",
        "And there it was, {hiding}: the {adjective} {thing}!",
        "They could not find it, but {friend} made {him} a new {thing}.",
    ),
    (
        "{hero} was happy again and thanked {friend}.",
        "{hero} and {friend} went home and ate {food}.",
        "From then on {hero} and {friend} shared everything.",
        '{hero} hugged {friend} and said, "You are my best friend."',
        "That night {hero} slept with the {thing} next to {him}.",
        "After that {he} was never {feeling} when {he} had to {doing}.",
        "{hero} learned to be kind, and {friend} learned to {doing2}.",
        "The {animal} stayed with {hero}, and they lived in the {place} together.",
    ),
)
_ASIDES = (
    "{weather}.",
    "They ate {food} and {food2}.",
    "{hero} had a {mood} {animal} too.",
    "The {place} was full of {food2}.",
    "{friend} liked to {doing2}.",
    '"Look!" said {friend}. "A {adjective2} {animal}!"',
    "{hero} laughed, and {friend} laughed too.",
    '"Can we {doing2} now?" asked {friend}.',
    "{His} {kin} waved to {him} from the {place}.",
    "It took them {number} hours.",
    "Nobody else was in the {place2}.",
    "An old {animal} watched them and said nothing.",
)
_TWICE = ("adjective", "doing", "place", "thing", "food")  # two of them in one story, and never the same


class _Zipf:
    """Draws with weight 1 / (rank + 2): the first item about 12 times as often as the thirtieth."""

    def __init__(self, items: Sequence[str]) -> None:
        self.items = items
        self._bounds = list(itertools.accumulate(1 / (rank + 2) for rank in range(len(items))))

    def draw(self, draw: np.random.Generator) -> str:
        return self.items[bisect.bisect(self._bounds, draw.random() * self._bounds[-1])]

    def other(self, draw: np.random.Generator, *taken: str) -> str:
        while (item := self.draw(draw)) in taken:
            pass
        return item


_SLOTS = {slot: _Zipf(items) for slot, items in _WORDS.items()}
_CAST = {"girl": _Zipf(GIRLS), "boy": _Zipf(BOYS)}
_PRONOUNS = {"girl": ("she", "her", "her"), "boy": ("he", "his", "him")}
_CHAPTERS = [_Zipf(act) for act in _ACTS]
_BETWEEN = _Zipf(_ASIDES)


def _cast(draw: np.random.Generator) -> dict[str, str]:
    child, other = ("girl", "boy")[draw.integers(2)], ("girl", "boy")[draw.integers(2)]
    hero = _CAST[child].draw(draw)
    he, his, him = _PRONOUNS[child]
    he2, his2, _ = _PRONOUNS[other]
    cast = {"child": child, "hero": hero, "friend": _CAST[other].other(draw, hero)}
    cast |= {"he": he, "his": his, "him": him, "He": he.title(), "His": his.title()}
    return cast | {"he2": he2, "his2": his2, "He2": he2.title()}


def stories() -> Iterator[str]:
    """An endless stream of stories of 8 to 13 sentences in two paragraphs; story i depends on i alone."""
    for i in itertools.count():
        draw = generator("sample-corpus", "story", i)
        slots = _cast(draw) | {slot: zipf.draw(draw) for slot, zipf in _SLOTS.items()}
        slots |= {f"{slot}2": _SLOTS[slot].other(draw, slots[slot]) for slot in _TWICE}
        sentences: list[str] = []
        said: list[str] = []
        for act, chapter in enumerate(_CHAPTERS):
            sentences.append(chapter.draw(draw).format_map(slots))
            if act == 3:
                sentences.append("\n")
            elif draw.random() < 0.4:
                said.append(_BETWEEN.other(draw, *said))
                sentences.append(said[-1].format_map(slots))
        yield " ".join(sentences).replace(" \n ", "\n") + "\n"
