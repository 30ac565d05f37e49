"""Texts that stand in for what people type, when the probability that a hit fits is fitted.

Captions are sentences and people type a word or two, so captions alone teach little about queries. Two kinds of texts
are made for an index:

- phrases: up to three words of one of its captions, the last of which some but not most of its images are told with;
- absent things: names of everyday things of which no image has a word, so that nothing in the index fits them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.lexical.inverted_index import InvertedIndex
from storage.lexical.terms import terms

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_LONGEST_PHRASE = 3
# A word that fewer images have may stand for one image alone, and one that more have tells them too little apart.
_FEWEST_IMAGES, _LARGEST_SHARE = 5, 0.3

# Animals, plants, food, tools, machines, rooms, places, clothes, work, papers and screens, written for this: any
# collection lacks many of them.
_THINGS = """
aardvark, abacus, accordion, acorn, airport terminal, alligator, altar, ambulance, anchor, ant hill, antenna, anvil,
apricot, aquarium, armadillo, artichoke, asparagus, astronaut, aubergine, avalanche, avocado, badger, bagpipes, ballet
dancer, bamboo, banjo, banknote, bar chart, barbed wire, barcode, barometer, bathtub, battery, beaver, beehive,
beetroot, bison, blackboard, blender, blueprint, bonsai, bookshelf, bottle opener, bowling alley, brain scan,
broccoli, bulldozer, bunk bed, business card, butterfly, cabbage, cable car, cactus, calculator, calendar, camel,
candelabra, canyon, carrot, cash register, castle, caterpillar, cathedral, cauliflower, cave painting, cello, cement
mixer, centipede, chainsaw, chameleon, chandelier, cheese platter, cheetah, cherry blossom, chess board, chimpanzee,
chocolate cake, circuit board, clarinet, cobra, cocktail, coffee machine, coins, comet, compass, computer screen,
contact lens, coral reef, corkscrew, courtroom, cow shed, crab, crane operator, credit card, crocodile, crossword,
crown, cucumber, cupcake, curtains, dandelion, dartboard, dental clinic, desert dune, diamond ring, dinosaur skeleton,
dishwasher, dolphin, doorbell, dragon, drill, drum kit, eagle, earthworm, eclipse, electric guitar, elephant,
elevator, envelope, escalator, eyeglasses, factory robot, ferret, ferris wheel, filing cabinet, fingerprint, fire
extinguisher, fireplace, flamingo, flute, forklift, fossil, fountain pen, freezer, frog, frying pan, furnace, galaxy,
garlic, gas mask, giraffe, glacier, globe, goldfish, gorilla, grape vine, grasshopper, grave stone, greenhouse, hair
dryer, hammer, hamster, handcuffs, hard disk, harp, hedgehog, helicopter, hieroglyphs, hippopotamus, honeycomb,
hospital bed, hot air balloon, hourglass, hummingbird, iceberg, igloo, iguana, invoice, ironing board, jellyfish,
jigsaw puzzle, judge, kangaroo, kebab, kettle, keyboard, kidney beans, kiwi fruit, knitting needles, koala, ladybird,
lamp post, laptop, laundry, lava, lawn mower, leek, lemon, leopard, letter box, lighthouse, lightning, lipstick,
lizard, llama, lobster, loom, lychee, magnet, mammoth, mango, map of the world, marble statue, mattress, meerkat,
melon, microphone, microscope, microwave oven, milk bottle, mosque, mosquito, moth, mushroom, nebula, necklace,
newspaper, nurse, nutcracker, oboe, observatory, octopus, oil rig, olive, omelette, onion, opera house, orchid, organ
pipes, ostrich, otter, owl, oyster, padlock, pagoda, paint brush, pancakes, panda, panther, parking meter, parrot,
passport, peacock, peanut, pelican, penguin, pepper mill, petrol station, piano, pie chart, pigeon, pine cone,
pineapple, pizza, planet, platypus, plug socket, polar bear, pomegranate, porcupine, postage stamp, potato, power
plant, pretzel, printer, projector, propeller, pumpkin, puppet theatre, pyramid, quilt, raccoon, radar screen, radish,
rattlesnake, receipt, recipe, record player, recycling bin, refrigerator, reindeer, rhinoceros, rocket launch, roller
coaster, router, rubber duck, ruins, safe, salamander, salmon fillet, sandcastle, satellite, saxophone, scaffolding,
scarecrow, scissors, scorpion, screwdriver, seahorse, server room, sewing machine, shark, sheet music, shipwreck,
shower, skeleton, skyscraper, slot machine, sloth, snail, soap, solar panels, spaghetti, spider web, spinach,
spreadsheet, squid, squirrel, stadium, staircase, stapler, starfish, steam engine, stethoscope, stock market,
strawberry, submarine, sundial, sunflower, sushi, swan, switchboard, sword, syringe, tadpole, tank, tapestry, tax
form, teapot, telescope, termite, test tube, thermometer, thimble, tiger, toaster, toilet, tomato, toothbrush,
tornado, tortoise, totem pole, tractor, traffic light, treadmill, trombone, trumpet, tulip, turbine, turkey,
typewriter, ukulele, umbrella stand, unicorn, vacuum cleaner, vending machine, violin, volcano, vulture, waffle,
walnut, walrus, wardrobe, washing machine, wasp, watermelon, weather map, wedding cake, whale, wheelbarrow, whisk,
wind turbine, windmill, wine cellar, wolf, wombat, wrench, x-ray, xylophone, yak, yoghurt, zebra
"""


class Phrase(NamedTuple):
    """Some words of a caption.

    Attributes:
        text: The words.
        own: Row of the text that they are of.
        images: Rows of the images with the last word, ascending.
    """

    text: str
    own: int
    images: NDArray[np.int64]


def phrases(
    caption: Callable[[int], str], rows: Sequence[int], index: InvertedIndex, most: int, rng: np.random.Generator
) -> list[Phrase]:
    """Return phrases of captions, one of a caption at most.

    Args:
        caption: Gives that of a row.
        rows: Of the captions to take them from, in this order.
        index: The words of the images.
        most: As many as this.
        rng: Chooses the words.
    """
    known: dict[str, NDArray[np.int64] | None] = {}
    found: list[Phrase] = []
    for row in rows:
        words = _WORD.findall(caption(row))
        ends = [place for place, word in enumerate(words) if _images(word, index, known) is not None]
        if ends:
            end = int(rng.choice(ends))
            start = max(0, end + 1 - int(rng.integers(1, _LONGEST_PHRASE + 1)))
            images = _images(words[end], index, known)
            assert images is not None
            found.append(Phrase(" ".join(words[start : end + 1]), row, images))
        if len(found) == most:
            break
    return found


def absent_things(index: InvertedIndex, most: int, rng: np.random.Generator) -> list[str]:
    """Return names of things of which no image has a word, `most` at most."""
    names = everyday_things()
    chosen = [names[place] for place in rng.permutation(len(names))]
    return [name for name in chosen if not len(index.search(name).rows)][:most]


def everyday_things() -> list[str]:
    """Return the names that absent things are taken from."""
    return [name.strip() for name in " ".join(_THINGS.split()).split(",")]


def _images(word: str, index: InvertedIndex, known: dict[str, NDArray[np.int64] | None]) -> NDArray[np.int64] | None:
    """Return the rows of images with a word; None where it is no single term, or has too few or too many."""
    word = word.casefold()
    if word not in known:
        rows = index.search(word).rows if len(terms(word)) == 1 else np.empty(0, dtype=np.int64)
        known[word] = rows if _FEWEST_IMAGES <= len(rows) <= _LARGEST_SHARE * index.rows else None
    return known[word]
