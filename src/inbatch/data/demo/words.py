"""Words of the made-up catalogue, in the languages in which shops write their offers.

Catalogue titles take the first English word of an entry.
"""

from __future__ import annotations

from dataclasses import dataclass

Words = dict[str, tuple[str, ...]]  # language -> what shops of that language write

LANGUAGES = ("en", "de", "fr", "es", "it")


def words(en: str, de: str, fr: str, es: str, it: str) -> Words:
    """One entry; a bar separates the words of a language."""
    return {name: tuple(w.split("|")) for name, w in zip(LANGUAGES, (en, de, fr, es, it))}


@dataclass(frozen=True, slots=True)
class Category:
    """Nouns, sizes and materials of the products of a category."""

    nouns: Words
    unit: str  # key of UNITS, or "size" for labels such as XL
    sizes: tuple[str, ...]
    materials: tuple[str, ...]  # keys of MATERIALS


CLOTHES = ("S", "M", "L", "XL", "XXL")
SHOES = tuple(str(size) for size in range(37, 48))

CATEGORIES = (
    Category(
        words(
            "cordless drill|battery drill",
            "Akku-Bohrschrauber|Akkuschrauber",
            "perceuse sans fil|visseuse",
            "taladro inalámbrico|atornillador",
            "trapano a batteria|avvitatore",
        ),
        *("V", ("12", "14.4", "18", "36"), ("aluminium", "plastic", "steel")),
    ),
    Category(
        words(
            "safety shoes|work boots",
            "Sicherheitsschuhe|Arbeitsschuhe",
            "chaussures de sécurité",
            "zapatos de seguridad|calzado laboral",
            "scarpe antinfortunistiche",
        ),
        *("size", SHOES, ("leather", "suede", "nylon")),
    ),
    Category(
        words(
            "rain jacket|waterproof jacket",
            "Regenjacke",
            "veste de pluie|imperméable",
            "chaqueta impermeable|chubasquero",
            "giacca impermeabile",
        ),
        *("size", CLOTHES, ("nylon", "cotton", "wool")),
    ),
    Category(
        words(
            "work gloves|protective gloves",
            "Arbeitshandschuhe|Schutzhandschuhe",
            "gants de travail",
            "guantes de trabajo",
            "guanti da lavoro",
        ),
        *("size", CLOTHES, ("leather", "cotton", "rubber")),
    ),
    Category(
        words(
            "backpack|rucksack",
            "Rucksack|Tagesrucksack",
            "sac à dos",
            "mochila",
            "zaino",
        ),
        *("l", ("15", "20", "28", "35"), ("nylon", "leather", "cotton")),
    ),
    Category(
        words(
            "water bottle|drinking flask",
            "Trinkflasche|Wasserflasche",
            "gourde|bouteille d'eau",
            "botella de agua|cantimplora",
            "borraccia",
        ),
        *("l", ("0.5", "0.75", "1", "1.5"), ("steel", "glass", "aluminium", "plastic")),
    ),
    Category(
        words(
            "suitcase|trolley case",
            "Koffer|Reisekoffer",
            "valise",
            "maleta de viaje",
            "valigia",
        ),
        *("l", ("38", "65", "90", "110"), ("aluminium", "plastic", "nylon")),
    ),
    Category(
        words(
            "storage box|container",
            "Aufbewahrungsbox|Kiste",
            "boîte de rangement|caisse",
            "caja de almacenaje",
            "scatola portaoggetti",
        ),
        *("l", ("5", "12", "30", "60"), ("plastic", "wood", "steel")),
    ),
    Category(
        words(
            "desk lamp|reading light",
            "Schreibtischlampe|Leselampe",
            "lampe de bureau",
            "lámpara de escritorio|flexo",
            "lampada da tavolo",
        ),
        *("W", ("5", "9", "15", "40"), ("steel", "wood", "glass")),
    ),
    Category(
        words(
            "extension cable|power cord",
            "Verlängerungskabel",
            "rallonge électrique",
            "cable alargador|alargadera",
            "prolunga elettrica",
        ),
        *("m", ("1.5", "3", "5", "10", "25"), ("rubber", "plastic", "cotton")),
    ),
    Category(
        words(
            "curtain|drape",
            "Vorhang|Gardine",
            "rideau",
            "cortina",
            "tenda per finestra",
        ),
        *("m", ("1.4", "1.75", "2.25", "2.5"), ("cotton", "wool", "linen")),
    ),
    Category(
        words(
            "bath towel|shower towel",
            "Badetuch|Handtuch",
            "serviette de bain|drap de bain",
            "toalla de baño",
            "asciugamano|telo da bagno",
        ),
        *("cm", ("70", "100", "140", "180"), ("cotton", "linen", "bamboo")),
    ),
    Category(
        words(
            "frying pan|skillet",
            "Bratpfanne|Pfanne",
            "poêle à frire",
            "sartén",
            "padella",
        ),
        *("cm", ("20", "24", "28", "32"), ("steel", "aluminium", "cast iron")),
    ),
    Category(
        words(
            "cushion|throw pillow",
            "Kissen|Zierkissen",
            "coussin",
            "cojín|almohadón",
            "cuscino",
        ),
        *("cm", ("30", "40", "50", "60"), ("cotton", "linen", "wool", "leather")),
    ),
    Category(
        words(
            "knife|kitchen knife",
            "Küchenmesser|Kochmesser",
            "couteau de cuisine",
            "cuchillo de cocina",
            "coltello da cucina",
        ),
        *("cm", ("9", "13", "18", "21"), ("steel", "ceramic", "titanium")),
    ),
    Category(
        words(
            "wall clock",
            "Wanduhr|Uhr",
            "horloge murale|pendule",
            "reloj de pared",
            "orologio da parete",
        ),
        *("cm", ("25", "30", "35", "45"), ("wood", "glass", "plastic", "steel")),
    ),
)

MATERIALS = {
    name: words(f"{name}|{en}" if en else name, *others)
    for name, en, *others in (
        ("aluminium", "alloy", "Aluminium|Alu", "aluminium|alu", "aluminio", "alluminio"),
        ("bamboo", "", "Bambus", "bambou", "bambú", "bambù"),
        ("cast iron", "", "Gusseisen", "fonte", "hierro fundido", "ghisa"),
        ("ceramic", "", "Keramik", "céramique", "cerámica", "ceramica"),
        ("cotton", "", "Baumwolle", "coton", "algodón", "cotone"),
        ("glass", "", "Glas", "verre", "vidrio|cristal", "vetro"),
        ("leather", "cowhide", "Leder|Rindsleder", "cuir", "piel|cuero", "pelle|cuoio"),
        ("linen", "flax", "Leinen", "lin", "lino", "lino"),
        ("nylon", "polyamide", "Nylon|Polyamid", "nylon|polyamide", "nailon", "nylon"),
        ("plastic", "PVC", "Kunststoff|Plastik", "plastique", "plástico", "plastica"),
        ("rubber", "", "Gummi", "caoutchouc", "goma|caucho", "gomma"),
        ("steel", "inox", "Edelstahl|Stahl", "acier|inox", "acero inoxidable", "acciaio inox"),
        ("suede", "nubuck", "Wildleder", "daim", "ante", "camoscio"),
        ("titanium", "", "Titan", "titane", "titanio", "titanio"),
        ("wood", "oak", "Holz|Eiche", "bois|chêne", "madera", "legno"),
        ("wool", "merino", "Wolle|Schurwolle", "laine", "lana", "lana"),
    )
}

# Catalogue colour -> its letters in a product code, and its words.
COLOURS = {
    "black": ("BK", words("black|jet", "schwarz", "noir", "negro", "nero")),
    "white": ("WH", words("white", "weiß|weiss", "blanc", "blanco", "bianco")),
    "grey": ("GY", words("grey|gray", "grau|anthrazit", "gris", "gris", "grigio")),
    "red": ("RD", words("red", "rot", "rouge", "rojo", "rosso")),
    "blue": ("BL", words("blue", "blau", "bleu", "azul", "blu")),
    "navy": ("NY", words("navy", "dunkelblau|marine", "bleu marine", "azul marino", "blu scuro")),
    "green": ("GN", words("green", "grün", "vert", "verde", "verde")),
    "olive": ("OL", words("olive|khaki", "oliv", "kaki", "oliva|caqui", "oliva")),
    "yellow": ("YE", words("yellow", "gelb", "jaune", "amarillo", "giallo")),
    "orange": ("OR", words("orange", "orange", "orange", "naranja", "arancione")),
    "pink": ("PK", words("pink|rose", "rosa", "rose", "rosa", "rosa")),
    "purple": ("PU", words("purple|violet", "lila|violett", "violet", "morado", "viola")),
    "brown": ("BR", words("brown", "braun", "marron", "marrón", "marrone")),
    "beige": (
        "BE",
        words("beige|sand", "beige|sandfarben", "beige|sable", "beige|arena", "sabbia"),
    ),
}

# Unit -> how it is written in every language, with the factor of what it is converted to.
UNITS: dict[str, tuple[tuple[str, ...], tuple[int, str] | None]] = {
    "V": (("V", "Volt"), None),
    "W": (("W", "Watt"), None),
    "l": (("l", "L", "ltr"), (1000, "ml")),
    "m": (("m", "mt"), (100, "cm")),
    "cm": (("cm",), (10, "mm")),
}
LABELS = words("size", "Gr.|Größe", "taille|T.", "talla", "taglia|tg.")

NOISE = words(
    "new|original|sale|free shipping|in stock|2 years warranty|best price|gift idea",
    "neu|Original|Angebot|versandkostenfrei|auf Lager|2 Jahre Garantie|Bestpreis|Geschenkidee",
    "neuf|d'origine|promo|livraison gratuite|en stock|garantie 2 ans|meilleur prix|idée cadeau",
    "nuevo|original|oferta|envío gratis|en stock|2 años de garantía|mejor precio|idea de regalo",
    "nuovo|originale|offerta|spedizione gratuita|disponibile|garanzia 2 anni|idea regalo",
)

BRANDS = tuple(
    head + tail
    for head in ("Nor", "Sol", "Ten", "Hal", "Per", "Zen", "Bel", "Cran")
    for tail in ("vik", "ara", "brook", "dot")
)
SERIES = (
    *("Aero", "Bolt", "Cirrus", "Delta", "Ember", "Flux", "Glide", "Haven", "Iris", "Jolt"),
    *("Karma", "Lotus", "Metro", "Nova", "Orbit", "Pulse", "Quest", "Ridge", "Summit", "Titan"),
)
