"""Realistic users in the API's exact shape, each a pure function of its number and a seed."""

import datetime
import hashlib
import json
import string
import struct
import unicodedata
from binascii import hexlify
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from randusers_sandbox.locales import ANIMALS, COLOURS, LOCALES, PASSWORDS, TIMEZONES, Locale

REPEATED_EMAIL_EVERY: Final = 500

_TEMPLATE: Final = (
    b'%b%b"},"location":{"street":{"number":%d,"name":"%b"},"city":"%b",'
    b'"state":"%b%b","postcode":%b,'
    b'"coordinates":{"latitude":"%b%b","longitude":"%b%b"},'
    b'"timezone":%b},"email":"%b%b%d@example.com",'
    b'"login":{"uuid":"%b-%b-4%b-%b%b-%b",'
    b'"username":"%b%d","password":"%b",'
    b'"salt":"%b%b","md5":"%b","sha1":"%b","sha256":"%b"},'
    b'"dob":{"date":"%b%b","age":%d},"registered":{"date":"%b%b","age":%d},'
    b'"phone":"%b%b","cell":"%b%b",'
    b'"id":%d,"picture":%b,"nat":"%b"}'
)

# No NFKD decomposition turns these into ASCII.
_LATIN: Final = str.maketrans(
    {"ø": "o", "æ": "ae", "ß": "ss", "đ": "dj", "\N{LATIN SMALL LETTER DOTLESS I}": "i"}
)
_FIRST_BIRTHDAY: Final = datetime.date(1944, 1, 1).toordinal()
_BIRTHDAYS: Final = datetime.date(2002, 1, 1).toordinal() - _FIRST_BIRTHDAY
_REGISTERED: Final = datetime.date(2022, 6, 1).toordinal() - _FIRST_BIRTHDAY - _BIRTHDAYS
_AGES_AS_OF: Final = datetime.date(2023, 4, 1)

_T = TypeVar("_T")


class _Person(NamedTuple):
    head: bytes
    local_part: bytes
    pictures: Sequence[bytes]


class _Place(NamedTuple):
    """One locale's pieces of JSON; the length of each list is a power of two."""

    people: Sequence[_Person]
    lasts: Sequence[tuple[bytes, bytes]]
    streets: Sequence[bytes]
    cities: Sequence[bytes]
    states: Sequence[bytes]
    postcodes: Sequence[bytes]
    phones: Sequence[bytes]
    cells: Sequence[bytes]
    nat: bytes


def _cycled(values: Sequence[_T], length: int) -> list[_T]:
    return (list(values) * (length // len(values) + 1))[:length]


def _inside(text: str) -> bytes:
    """Return a text as JSON, without its quotes."""
    return json.dumps(text, ensure_ascii=False).encode()[1:-1]


def _listed(names: str, end: bytes = b"") -> list[bytes]:
    return _cycled([_inside(name) + end for name in names.split(", ")], 64)


def _latin(name: str) -> bytes:
    plain = unicodedata.normalize("NFKD", name.casefold().translate(_LATIN))
    return "".join(c for c in plain if c in string.ascii_lowercase).encode()


def _names(listed: str) -> list[tuple[bytes, bytes]]:
    pairs = (entry.partition("=") for entry in listed.split(", "))
    return [(_inside(name), _latin(latin or name)) for name, _, latin in pairs]


def _from_pattern(pattern: str, salt: str, length: int) -> list[str]:
    """Return `length` strings of a pattern, where `#` is a digit and `@` a capital letter."""
    noise = iter(hashlib.shake_256(f"{salt} {pattern}".encode()).digest(length * len(pattern)))
    alphabets = {"#": string.digits, "@": string.ascii_uppercase}

    def drawn(c: str) -> str:
        return alphabets[c][next(noise) % len(alphabets[c])] if c in alphabets else c

    return ["".join(map(drawn, pattern)) for _ in range(length)]


def _postcodes(locale: Locale) -> list[bytes]:
    made = _from_pattern(locale.postcode, locale.nat, 512)
    if locale.postcode.strip("#"):
        return [b'"%b"' % code.encode() for code in made]
    # A JSON integer has no leading zero.
    return [(f"1{code[1:]}" if code[0] == "0" else code).encode() for code in made]


def _numbers(locale: Locale, pattern: str, kind: str) -> list[bytes]:
    """Return phone numbers without their last two digits; 1 in 16 starts with `+`, 1 with `-`."""
    made = _from_pattern(pattern[:-2], locale.nat + kind, 256)
    made[::16] = [f"{locale.calling_code} {number}" for number in made[::16]]
    made[8::16] = [f"-{number}" for number in made[8::16]]
    return [number.encode() for number in made]


def _pictures(folder: str) -> list[bytes]:
    base = "https://randomuser.me/api/portraits"
    return [
        f'{{"large":"{base}/{folder}/{n}.jpg","medium":"{base}/med/{folder}/{n}.jpg",'
        f'"thumbnail":"{base}/thumb/{folder}/{n}.jpg"}}'.encode()
        for n in range(100)
    ]


def _people(locale: Locale, men: Sequence[bytes], women: Sequence[bytes]) -> list[_Person]:
    swiss = locale.nat == "CH"
    titles = {
        "male": ["Monsieur" if swiss else "Mr"],
        "female": ["Madame", "Mademoiselle"] if swiss else ["Ms", "Mrs", "Miss"],
    }
    people = []
    for gender, listed, pictures in (("male", locale.men, men), ("female", locale.women, women)):
        heads = [f'{{"gender":"{gender}","name":{{"title":"{t}","first":"' for t in titles[gender]]
        named = [
            _Person(b'%b%b","last":"' % (head.encode(), first), latin + b".", pictures)
            for head in heads
            for first, latin in _names(listed)
        ]
        people += _cycled(named, 64)
    return people


def _places() -> list[_Place]:
    men, women = _pictures("men"), _pictures("women")
    places = []
    for locale in LOCALES:
        end = f'","country":"{locale.country}'.encode()
        place = _Place(
            people=_people(locale, men, women),
            lasts=_cycled(_names(locale.lasts), 64),
            streets=_listed(locale.streets),
            cities=_listed(locale.cities),
            states=_listed(locale.states, end),
            postcodes=_postcodes(locale),
            phones=_numbers(locale, locale.phone, "phone"),
            cells=_numbers(locale, locale.cell, "cell"),
            nat=locale.nat.encode(),
        )
        places += [place] * locale.weight
    return places


def _day(ordinal: int) -> tuple[bytes, int]:
    date = datetime.date.fromordinal(ordinal)
    before = (_AGES_AS_OF.month, _AGES_AS_OF.day) < (date.month, date.day)
    return f"{date}T".encode(), _AGES_AS_OF.year - date.year - before


_PLACES: Final = _places()
_STATE_SIGNS: Final = [b"-", b"+", *[b""] * 62]
_DIGITS_4: Final = [b"%04d" % n for n in range(10_000)]
_DIGITS_2: Final = [b"%02d" % n for n in range(100)]
_LATITUDES: Final = [b"-%d." % n for n in range(90)] + [b"%d." % n for n in range(90)]
_LONGITUDES: Final = [b"-%d." % n for n in range(180)] + [b"%d." % n for n in range(180)]
_TIMEZONES: Final = [
    f'{{"offset":"{offset}","description":"{description}"}}'.encode()
    for offset, description in TIMEZONES
]
_USERNAMES: Final = [(c + a).encode() for c in COLOURS.split(", ") for a in ANIMALS.split(", ")]
_PASSWORDS: Final = [word.encode() for word in PASSWORDS.split(", ")]
_SALTS: Final = [text.encode() for text in _from_pattern("@#@@", "salt", 256)]
_DAYS: Final = [_day(_FIRST_BIRTHDAY + n) for n in range(_BIRTHDAYS + _REGISTERED)]
_TIMES: Final = [
    b"%02d:%02d:%02d.%03dZ" % (n * 7 % 24, n * 11 % 60, n * 13 % 60, n * 997 % 1000)
    for n in range(4096)
]
_VARIANTS: Final = [b"8", b"9", b"a", b"b"]
_UNPACK: Final = struct.Struct("<32H").unpack


def user(number: int, seed: int = 0) -> bytes:
    """Return the user with the id `number`, from 1, as compact UTF-8 JSON in the API's key order.

    Each 500th user has the name and email of another one of its 500, since the API's own 500
    users have one such pair. All other emails are unique, and so are `id` and `login.uuid`.
    """
    digest = hashlib.blake2b(b"%d %d" % (seed, number)).digest()
    hexed = hexlify(digest)
    draws = _UNPACK(digest)
    a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q, r, s, t, u, v = draws[:21]
    named, drawn_name = number, b
    if not number % REPEATED_EMAIL_EVERY:
        named = number - 1 - c % (REPEATED_EMAIL_EVERY - 1)
        a, drawn_name = _UNPACK(hashlib.blake2b(b"%d %d" % (seed, named)).digest())[:2]
    people, lasts, streets, cities, states, postcodes, phones, cells, nat = _PLACES[a & 255]
    head, first, pictures = people[drawn_name & 127]
    last, last_latin = lasts[drawn_name >> 8 & 63]
    birthday, age = _DAYS[c % _BIRTHDAYS]
    registered, years = _DAYS[_BIRTHDAYS + d % _REGISTERED]
    # fmt: off
    return _TEMPLATE % (  # a line of values for each line of the template
        head, last, e % 9999 + 1, streets[f & 63], cities[f >> 6 & 63],
        _STATE_SIGNS[g & 63], states[g >> 6 & 63], postcodes[h & 511],
        _LATITUDES[i % 180], _DIGITS_4[j % 10_000], _LONGITUDES[k % 360], _DIGITS_4[m % 10_000],
        _TIMEZONES[n % 30], first, last_latin, named,
        hexed[64:72], hexed[72:76], hexed[77:80], _VARIANTS[o & 3], hexed[81:84], hexed[84:96],
        _USERNAMES[o >> 2 & 255], p % 900 + 100, _PASSWORDS[o >> 10 & 15],
        _SALTS[q & 255], _SALTS[q >> 8], hexed[:32], hexed[32:72], hexed[64:],
        birthday, _TIMES[r & 4095], age, registered, _TIMES[s & 4095], years,
        phones[t & 255], _DIGITS_2[(t >> 8) % 100], cells[u & 255], _DIGITS_2[(u >> 8) % 100],
        number, pictures[v % 100], nat,
    )
    # fmt: on
