"""Chapter 21, generation: which byte may come next in a text of JSON, by a stack of expectations.

A state is what the rest of the text must still be, one letter for each part, the next part last:
after ``{"a":`` it is "WMV", a value (V), then what follows a member of an object (M), then blanks
(W). Each byte takes the last letter away and puts others in its place: that is a pushdown
automaton, and the whole grammar is one table (RFC 8259).
"""

from collections.abc import Mapping

State = str
Rules = Mapping[str, Mapping[int, State]]
"""By letter and byte: the letters that take its place."""

START: State = "WV"
BLANKS, DIGITS = b" \t\n\r", b"0123456789"
OPTIONAL = "WBZIDY"
"""Parts that may be empty: a byte that they do not take goes to the part below."""
CLOSINGS: Mapping[str, bytes] = (
    {"V": b"0", "O": b"}", "M": b"}", "K": b'"":0}', "C": b":", "A": b"]", "E": b"]"}
    | {"S": b'"', "X": b'"', "H": b"0", "-": b"0", "F": b"0", "G": b"0", "R": b"0"}
    | {"T": b"\x80", "3": b"\xa0", "5": b"\x80", "6": b"\x90", "8": b"\x80"}
    | {letter: letter.encode() for letter in "truefalsn"}
    | dict.fromkeys(OPTIONAL, b"")
)
"""The shortest bytes that make each part whole."""


def _rules() -> dict[str, dict[int, State]]:
    """Letters: V value, O after "{", M after a member, K key, C colon, A after "[", E after an
    element, S in a string, X after a backslash, H hexadecimal digit, W blanks."""
    value = {
        **_on(b"{", "O"),
        **_on(b"[", "A"),
        **_on(b'"', "S"),
        **_on(b"t", "eur"),
        **_on(b"f", "esla"),
        **_on(b"n", "llu"),
        **_number(),
    }
    key = _on(b'"', "MVCS")
    rules: dict[str, dict[int, State]] = {
        "V": value,
        "O": key | _on(b"}", ""),
        "M": _on(b",", "K") | _on(b"}", ""),
        "K": key,
        "C": _on(b":", ""),
        "A": {byte: "E" + then for byte, then in value.items()} | _on(b"]", ""),
        "E": _on(b",", "EV") | _on(b"]", ""),
        "W": {},
    }
    for letter, table in rules.items():
        table |= _on(BLANKS, letter)
    for letter in "truefalsn":
        rules[letter] = _on(letter.encode(), "")
    return rules | _string() | _number_parts()


def _string() -> dict[str, dict[int, State]]:
    """Letters of UTF-8: T a byte 80 … BF, and the narrower second bytes after E0, ED, F0, F4."""
    inside = dict.fromkeys(range(0x20, 0x80), "S") | _on(b'"', "") | _on(b"\\", "SX")
    inside |= dict.fromkeys(range(0xC2, 0xE0), "ST") | dict.fromkeys(range(0xE1, 0xF0), "STT")
    inside |= {0xE0: "ST3", 0xED: "ST5"}
    inside |= dict.fromkeys(range(0xF1, 0xF4), "STTT") | {0xF0: "STT6", 0xF4: "STT8"}
    return {
        "S": inside,
        "X": _on(b'"\\/bfnrt', "") | _on(b"u", "HHHH"),
        "H": _on(DIGITS + b"abcdefABCDEF", ""),
        "T": dict.fromkeys(range(0x80, 0xC0), ""),
        "3": dict.fromkeys(range(0xA0, 0xC0), ""),
        "5": dict.fromkeys(range(0x80, 0xA0), ""),
        "6": dict.fromkeys(range(0x90, 0xC0), ""),
        "8": dict.fromkeys(range(0x80, 0x90), ""),
    }


def _number() -> dict[int, State]:
    """How a number begins: "-", "0" or another digit."""
    return _on(b"-", "-") | _on(b"0", "Z") | _on(DIGITS[1:], "I")


def _number_parts() -> dict[str, dict[int, State]]:
    """Letters: - after the sign, Z after a first 0, I in the whole part, F after the point, D in
    the decimals, G after "e", R after its sign, Y in the exponent."""
    power = _on(b"eE", "G")
    return {
        "-": _on(b"0", "Z") | _on(DIGITS[1:], "I"),
        "Z": _on(b".", "F") | power,
        "I": _on(DIGITS, "I") | _on(b".", "F") | power,
        "F": _on(DIGITS, "D"),
        "D": _on(DIGITS, "D") | power,
        "G": _on(b"+-", "R") | _on(DIGITS, "Y"),
        "R": _on(DIGITS, "Y"),
        "Y": _on(DIGITS, "Y"),
    }


def _on(data: bytes, then: State) -> dict[int, State]:
    return dict.fromkeys(data, then)


def _compact() -> dict[str, dict[int, State]]:
    rules = _rules()
    for letter in "VOMKCAEW":
        for byte in BLANKS:
            del rules[letter][byte]
    for letter, sign in (("C", ":"), ("M", ","), ("E", ",")):
        rules[letter][ord(sign)] += "B"
    return rules | {"B": _on(b" ", "")}


JSON: Rules = _rules()
COMPACT: Rules = _compact()
"""JSON without blanks but one space after a colon or a comma: who writes cannot go on with blanks
for ever, which a model that likes new lines would do."""


def step(state: State, byte: int, rules: Rules = JSON) -> State | None:
    """The state after one more byte; None if no JSON goes on like that.

    >>> step("WV", ord("[")), step("WV", ord("]"))
    ('WA', None)
    """
    while state:
        part, below = state[-1], state[:-1]
        if byte in rules[part]:
            return below + rules[part][byte]
        if part not in OPTIONAL:
            return None
        state = below
    return None


def read(data: bytes, state: State | None = START, rules: Rules = JSON) -> State | None:
    """The state after all of ``data``; None if no JSON begins like that."""
    for byte in data:
        if state is None:
            break
        state = step(state, byte, rules)
    return state


def is_whole(state: State) -> bool:
    """Whether the text may end here.

    >>> is_whole(read(b"[1, 2]")), is_whole(read(b"[1, 2"))
    (True, False)
    """
    return all(part in OPTIONAL for part in state)


def closing(state: State) -> bytes:
    """The shortest bytes that make the text whole.

    >>> closing(read(b'{"a": [tr'))
    b'ue]}'
    """
    return b"".join(CLOSINGS[part] for part in reversed(state))
