"""Chapter 01, step 9: tokenizers that are published as a list of tokens, without their merges.

The list stands in the order in which the tokens were learnt; a token's place is its rank. That is
enough: the pair that made a token is what its bytes become under all earlier merges.
"""

from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path

from llmtutor.tokenizer.files import Merge, read_json, read_text
from llmtutor.tokenizer.merge import merge


def merges_of(tokens: Sequence[bytes]) -> list[Merge]:
    """The merges that make the tokens, given in order of rank, from the 256 bytes among them.

    `ValueError` for a token that no two earlier ones make.

    >>> merges_of([*(bytes([byte]) for byte in range(256)), b"ow", b"low", b"lower"[3:], b"lower"])
    [(b'o', b'w'), (b'l', b'ow'), (b'e', b'r'), (b'low', b'er')]
    """
    ids = {token: id for id, token in enumerate(tokens)}
    if missing := {bytes([byte]) for byte in range(256)} - set(ids):
        raise ValueError(f"expected all 256 bytes among the tokens, found no {min(missing)!r}")
    byte_ids = [ids[bytes([byte])] for byte in range(256)]
    ranks: dict[tuple[int, int], int] = {}
    results: list[int] = []
    for id, token in enumerate(tokens):
        if len(token) == 1:
            continue
        parts = merge([byte_ids[byte] for byte in token], ranks, results)
        if len(parts) != 2:
            raise ValueError(
                f"expected each token to be made of two earlier ones; {token!r}, of rank {id}, "
                f"becomes {[tokens[part] for part in parts]}: is the list in order of rank?"
            )
        ranks[parts[0], parts[1]] = len(results)
        results.append(id)
    return [(tokens[left], tokens[right]) for left, right in ranks]


def read_tiktoken(path: Path) -> list[bytes]:
    """The tokens of a ``.tiktoken`` file, which has one a line, in base64, with its rank."""
    tokens: list[bytes] = []
    for rank, line in enumerate(read_text(path).splitlines()):
        token, _, number = line.partition(" ")
        tokens.append(_decoded(token, f"{path}, line {rank + 1}"))
        if number != str(rank):
            raise ValueError(
                f"{path}, line {rank + 1}: expected a token in base64, a space and the rank "
                f"{rank}, found {line!r}"
            )
    return tokens


def read_tekken(path: Path) -> list[bytes]:
    """The tokens of Mistral's ``tekken.json`` that its models use: the first ones of a longer list.

    `config` says how many ids there are, and how many of these are for special tokens.
    """
    table = read_json(path)
    try:
        config: dict[str, int] = table["config"]  # type: ignore[assignment]
        entries: list[dict[str, str]] = table["vocab"]  # type: ignore[assignment]
        n = config["default_vocab_size"] - config["default_num_special_tokens"]
        encoded = [entry["token_bytes"] for entry in entries[:n]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a tokenizer as Mistral writes it ({error!r})") from None
    return [_decoded(token, f"{path}, token {rank}") for rank, token in enumerate(encoded)]


def _decoded(token: str, where: str) -> bytes:
    try:
        return b64decode(token, validate=True)
    except ValueError:
        raise ValueError(f"{where}: expected a token in base64, found {token!r}") from None
