"""The words of the invented shop: its topics, and a small grammar for item texts and reviews.

Everything here is made up, brands included. A topic's phrases fit these slots:
`looks` + `nouns` name a thing ("cast-iron loaf tin"), `uses` follow "for" ("baking sourdough"),
`aspects` follow "the" and take a singular verb, `features` are whole sentences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class Topic:
    """One latent taste: what its items are called, said to do, and praised or blamed for.

    `peak` is the month of highest demand; `swing` is the log of (peak demand / yearly middle).
    """

    name: str
    category: str
    peak: int
    swing: float
    nouns: tuple[str, ...]
    looks: tuple[str, ...]
    uses: tuple[str, ...]
    features: tuple[str, ...]
    aspects: tuple[str, ...]


def _topic(name: str, peak: int, swing: float, **slots: str) -> Topic:
    """A topic from slots whose phrases are separated by `|`; `name` is "category/topic"."""
    phrases = {slot: tuple(p.strip() for p in text.split("|")) for slot, text in slots.items()}
    return Topic(name, name.split("/")[0], peak, swing, **phrases)


# Category: middle price, and the brands that sell in it.
CATEGORIES: dict[str, tuple[float, tuple[str, ...]]] = {
    "kitchen": (32.0, ("Hearthwell", "Ovenby", "Brambleware", "Tindale")),
    "garden": (28.0, ("Greenmoor", "Loamwright", "Fernsby", "Sunpatch")),
    "running": (64.0, ("Stridewell", "Fellrun", "Pacemark", "Airhollow")),
    "office": (40.0, ("Deskford", "Quillmore", "Papergrove", "Uprise")),
    "care": (18.0, ("Dewbloom", "Saltmarsh", "Barberton", "Puretide")),
    "toys": (24.0, ("Knotwood", "Mirthbox", "Tumblefield", "Ravenroll")),
    "pets": (22.0, ("Waggington", "Purrdale", "Pawbury", "Kennelby")),
    "bedroom": (55.0, ("Slumberly", "Downfield", "Moonlatch", "Glowhurst")),
    "music": (110.0, ("Fretley", "Tonegarth", "Clefton", "Wavebarn")),
    "workshop": (48.0, ("Oakhammer", "Grainwright", "Brushfield", "Vicebury")),
}

TOPICS: tuple[Topic, ...] = (
    _topic(
        "kitchen/baking", 12, 0.5,
        nouns="loaf tin | cake ring | proving basket | rolling pin | muffin tray | mixing bowl",
        looks="cast-iron | non-stick | beech | enamelled | stoneware | silicone",
        uses="baking sourdough | birthday cakes | shortcrust pastry | Sunday bread",
        features="Bakes evenly up to 250 degrees. | Dough comes away without tearing."
        " | Gives every loaf a crisp crust. | Keeps flour and batter off the worktop.",
        aspects="crust it gives | non-stick coating | rim | shape",
    ),
    _topic(
        "kitchen/coffee", 1, 0.1,
        nouns="espresso pot | hand grinder | milk frother | pour-over dripper | gooseneck kettle",
        looks="stainless steel | copper | ceramic | double-walled | matt black | glass",
        uses="morning espresso | filter coffee | frothing oat milk | brewing at the office",
        features="Grinds beans from coarse to espresso-fine. | Keeps coffee hot for an hour."
        " | Pours a thin steady stream. | Brings out the aroma of light roasts.",
        aspects="coffee aroma | grind setting | spout | milk foam",
    ),
    _topic(
        "garden/vegetables", 4, 1.0,
        nouns="seed tray | raised bed | watering can | hand trowel | tomato cage | compost bin",
        looks="galvanised | larch | self-watering | frost-proof | long-handled | recycled",
        uses="growing tomatoes | sowing lettuce | potting up seedlings | an allotment plot",
        features="Drains well so roots never stand in water. | Keeps slugs away from young plants."
        " | Warms the soil early in spring. | Survives winter outdoors.",
        aspects="drainage | handle | soil depth | joint at the corner",
    ),
    _topic(
        "garden/terrace", 6, 1.0,
        nouns="charcoal barbecue | parasol | lounge chair | fire bowl | garden bench | lantern",
        looks="teak | powder-coated | folding | weatherproof | woven | solar",
        uses="grilling with friends | long evenings outside | a sunny balcony | summer parties",
        features="Lights in ten minutes and holds its heat. | Folds flat for the shed."
        " | Cushions dry quickly after rain. | Stands firm in a breeze.",
        aspects="cushion | grill surface | frame | sunshade",
    ),
    _topic(
        "running/trail", 9, 0.5,
        nouns="trail shoe | hydration vest | wind jacket | head torch | gaiter | running pole",
        looks="grippy | waterproof | ultralight | rock-plated | packable | mud-shedding",
        uses="muddy hill trails | mountain ultras | forest paths | night runs on the fells",
        features="Deep lugs bite into wet rock and mud. | Holds two soft flasks without bounce."
        " | Packs down to the size of an apple. | Protects toes from roots and stones.",
        aspects="grip in mud | toe guard | fit on descents | strap",
    ),
    _topic(
        "running/road", 4, 0.5,
        nouns="racing flat | training shoe | interval watch | compression sock | race singlet",
        looks="cushioned | carbon-plated | breathable | reflective | seamless | featherweight",
        uses="marathon training | track intervals | a first ten kilometres | tempo runs on tarmac",
        features="Springs back at every stride on tarmac. | Tracks pace and heart rate by the lap."
        " | Wicks sweat on long city miles. | Seen by traffic from afar.",
        aspects="cushioning | lap display | midsole foam | heel",
    ),
    _topic(
        "office/desk", 1, 0.2,
        nouns="standing desk | monitor arm | desk chair | foot rest | keyboard tray | laptop stand",
        looks="height-adjustable | ergonomic | aluminium | mesh-backed | cable-free | bamboo",
        uses="working from home | long video calls | two monitors | relieving a stiff back",
        features="Moves from sitting to standing at a touch. | Supports the lower back all day."
        " | Hides every cable. | Lifts the screen to eye level.",
        aspects="back support | motor | armrest | clamp",
    ),
    _topic(
        "office/stationery", 9, 0.7,
        nouns="fountain pen | dotted notebook | ink bottle | pencil case | weekly planner",
        looks="leather-bound | brass | refillable | hardcover | thread-sewn | linen",
        uses="journalling | letters by hand | lecture notes | sketching ideas",
        features="Paper takes wet ink without bleeding. | The nib glides with no pressure."
        " | Lies flat on every page. | Refills in seconds.",
        aspects="paper | nib | binding | ink flow",
    ),
    _topic(
        "care/skin", 1, 0.3,
        nouns="face cream | body butter | clay mask | night serum | sun lotion | cleansing balm",
        looks="unscented | hydrating | vegan | oat-milk | aloe | fast-absorbing",
        uses="dry winter skin | sensitive faces | a calm evening routine | sunburnt shoulders",
        features="Sinks in within a minute and leaves no shine. | Soothes redness overnight."
        " | Free of perfume and colour. | Keeps skin soft until evening.",
        aspects="scent | texture | feeling on the skin | pump",
    ),
    _topic(
        "care/shaving", 12, 0.3,
        nouns="safety razor | shaving brush | beard oil | beard trimmer | shaving soap | comb",
        looks="chrome | badger-free | cedarwood | rechargeable | double-edged | old-school",
        uses="a close wet shave | thick beards | stubble | travelling barbers",
        features="Shaves close without a single nick. | Whips up a dense lather."
        " | Tames stray whiskers all day. | Blades cost pennies to replace.",
        aspects="blade | lather | beard softness | battery",
    ),
    _topic(
        "toys/toddlers", 12, 0.8,
        nouns="building block set | stacking tower | pull-along duck | shape sorter | play kitchen",
        looks="wooden | rainbow | rounded | water-based painted | chunky | birch",
        uses="curious toddlers | first birthdays | small hands | quiet play on the carpet",
        features="Smooth edges that little fingers can hold. | Paint is safe to chew."
        " | Teaches colours and counting. | Rolls along without tipping over.",
        aspects="paint | finish of the wood | size for small hands | wheel",
    ),
    _topic(
        "toys/games", 12, 0.9,
        nouns="board game | card game | dice tower | puzzle | strategy game | party quiz",
        looks="cooperative | two-player | family | quick-play | award-winning | illustrated",
        uses="family game nights | rainy afternoons | four players | clever strategists",
        features="Rules are learnt in five minutes. | Every round plays differently."
        " | Thick cards and wooden meeples. | Keeps adults guessing until the last turn.",
        aspects="rule book | artwork | replay value | card quality",
    ),
    _topic(
        "pets/dogs", 10, 0.1,
        nouns="dog harness | chew toy | dog bed | training lead | treat pouch | raincoat for dogs",
        looks="padded | no-pull | chew-proof | washable | hi-vis | waxed",
        uses="puppies in training | long walks in the rain | strong chewers | old dogs",
        features="Spreads the pull across the chest. | Survives the most determined terrier."
        " | Cover goes in the washing machine. | Clips on in a second.",
        aspects="stitching | buckle | padding on the chest | squeaker",
    ),
    _topic(
        "pets/cats", 11, 0.1,
        nouns="scratching post | litter tray | cat tunnel | feather wand | water fountain",
        looks="sisal | covered | whisper-quiet | wall-mounted | plush | odour-sealing",
        uses="indoor cats | playful kittens | shy rescue cats | sleepy tomcats",
        features="Saves the sofa from claws. | Traps litter and smell inside."
        " | Bubbles quietly so cats drink more. | Stays upright when leapt upon.",
        aspects="sisal rope | base | hiding place | litter mat",
    ),
    _topic(
        "bedroom/bedding", 11, 0.5,
        nouns="duvet | pillow | fitted sheet | mattress topper | wool blanket | duvet cover",
        looks="goose-down | organic cotton | cooling | brushed | stone-washed | hypoallergenic",
        uses="hot sleepers | side sleepers | cold winter nights | guest rooms",
        features="Breathes so nobody wakes up sweaty. | Stays plump after many washes."
        " | Fits mattresses up to 30 centimetres. | Softer after every wash.",
        aspects="filling | fabric | warmth at night | elastic at the hem",
    ),
    _topic(
        "bedroom/lamps", 11, 0.7,
        nouns="bedside lamp | wake-up light | string light | reading lamp | nightlight",
        looks="dimmable | rattan | warm-white | opal glass | cordless | touch-controlled",
        uses="reading in bed | waking before sunrise | dark corners | afraid children",
        features="Dims from bright to candle glow. | Imitates a sunrise over half an hour."
        " | Casts no glare on the page. | One charge shines for a week.",
        aspects="brightness | dimmer | lamp shade | light colour",
    ),
    _topic(
        "music/guitars", 12, 0.3,
        nouns="acoustic guitar | guitar strap | capo | tuner pedal | ukulele | set of strings",
        looks="spruce-topped | mahogany | phosphor bronze | travel-sized | clip-on | vintage",
        uses="campfire songs | fingerpicking | beginners learning chords | stage gigs",
        features="Stays in tune through a whole set. | Low action is kind to new fingers."
        " | Warm bass and clear trebles. | Fits in an overhead locker.",
        aspects="tone | fretboard | tuning stability | neck",
    ),
    _topic(
        "music/recording", 1, 0.2,
        nouns="studio microphone | audio interface | pair of headphones | pop filter | mixing desk",
        looks="condenser | closed-back | two-channel | USB-powered | low-noise | broadcast",
        uses="recording vocals | podcasts at home | mixing late at night | streaming",
        features="Captures vocals without hiss. | Isolates sound in a noisy room."
        " | Plugs in with no driver. | Flat response from bass to treble.",
        aspects="sound stage | noise floor | cable | gain knob",
    ),
    _topic(
        "workshop/woodwork", 10, 0.4,
        nouns="chisel set | block plane | dovetail saw | bench vice | marking gauge | wood clamp",
        looks="hardened | Japanese-style | rosewood | forged | quick-release | bevel-edged",
        uses="cutting dovetails | fine joinery | restoring furniture | building a workbench",
        features="Takes shavings thin enough to read through. | Holds an edge through hard oak."
        " | Clamps square every time. | Cuts on the pull for a narrow kerf.",
        aspects="edge | steel | jaw | balance of the tool",
    ),
    _topic(
        "workshop/painting", 5, 0.7,
        nouns="paint roller | wall brush | masking tape | dust sheet | paint sprayer | scraper",
        looks="lint-free | angled | low-tack | microfibre | washable | telescopic",
        uses="painting a ceiling | crisp edges on walls | varnishing doors | decorating a nursery",
        features="Covers a wall in one coat. | Leaves no drips and no bristles."
        " | Peels away without lifting paint. | Reaches a ceiling without a ladder.",
        aspects="coverage | bristle | peel | extension handle",
    ),
)  # fmt: skip

COLOURS = ("sand", "navy", "moss green", "charcoal", "rust", "white", "plum", "sky blue")

# By sentiment: 0 negative, 1 lukewarm, 2 positive. Slots: {noun} {aspect} {other} {use}.
_HEADLINES = (
    ("Not worth it", "Disappointed", "Poor {aspect}", "Sent it back"),
    ("All right", "Okay for the price", "Mixed feelings", "Does the job"),
    ("Love it", "Excellent {noun}", "Ideal for {use}", "Would buy again"),
)
_OPENINGS = (
    ("I regret buying this {noun}.", "This {noun} let me down.", "Expected far more."),
    ("A decent {noun}, nothing special.", "It's okay & does what it should.", "Average {noun}."),
    ("I love this {noun}!", "This {noun} is a joy to use.", "Couldn't be happier."),
)
_JUDGEMENTS = (
    ("The {aspect} is awful.", "The {aspect} failed within a week.", "The {aspect} feels cheap."),
    (
        "The {aspect} is fine, but the {other} could be better.",
        "The {aspect} is good enough.",
        "Not sure about the {aspect}.",
    ),
    (
        "The {aspect} is superb.",
        "The {aspect} is better than I hoped.",
        "Both the {aspect} and the {other} impress me.",
    ),
)
_ENDINGS = (
    ("Useless for {use}.", "Asked for my money back.", "Avoid it for {use}."),
    ("It will do for {use}.", "Might try another brand.", "Fair for the money."),
    ("Perfect for {use}.", "Recommended to all my friends.", "Worth every penny for {use}."),
)


def pick(rng: np.random.Generator, choices: tuple[T, ...]) -> T:
    """One of `choices`, all equally likely."""
    return choices[int(rng.integers(len(choices)))]


def product(rng: np.random.Generator, topic: Topic) -> tuple[str, str]:
    """A look and a noun of the topic: what an item is."""
    return pick(rng, topic.looks), pick(rng, topic.nouns)


def description(rng: np.random.Generator, look: str, noun: str, topics: Sequence[Topic]) -> str:
    """One to three sentences about a product: the first topic's words, then the second's if any."""
    main = topics[0]
    article = "An" if look[0] in "aeiou" else "A"
    sentences = [f"{article} {look} {noun} for {pick(rng, main.uses)}."]
    if rng.random() < 0.75:
        sentences.append(pick(rng, main.features))
    if len(topics) > 1:
        sentences.append(f"Just as good for {pick(rng, topics[1].uses)}.")
    return " ".join(sentences)


def review(
    rng: np.random.Generator, item_title: str, topic: Topic, interest: Topic, rating: float
) -> tuple[str, str]:
    """Title and text of a review: tone from the rating, aspects from the item's topic.

    About a third of the writers also say what they come to the shop for (`interest`).
    """
    tone = 2 if rating >= 4 else 1 if rating == 3 else 0
    first, second = rng.permutation(len(topic.aspects))[:2]
    slots = {
        "noun": next(noun for noun in topic.nouns if f" {noun}," in item_title),
        "aspect": topic.aspects[first],
        "other": topic.aspects[second],
        "use": pick(rng, topic.uses),
    }
    parts = [pick(rng, _OPENINGS[tone]), pick(rng, _JUDGEMENTS[tone])]
    if rng.random() < 0.6:
        parts.append(pick(rng, _ENDINGS[tone]))
    if rng.random() < 0.35:
        parts.append(f"My next order will be for {pick(rng, interest.uses)}.")
    return pick(rng, _HEADLINES[tone]).format(**slots), " ".join(parts).format(**slots)


def as_typed(rng: np.random.Generator, title: str, text: str) -> tuple[str | None, str | None]:
    """What reaches the shop's database: 15% only rate, 6% leave HTML behind."""
    fate = rng.random()
    if fate < 0.15:
        return None, None
    if fate < 0.21:
        text = text.replace("&", "&amp;").replace("'", "&#39;").replace(". ", ".<br />")
        return f"<b>{title}</b>", text
    return title, text
