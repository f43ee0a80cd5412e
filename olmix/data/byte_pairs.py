"""Making tokenisers: byte pairs learnt from documents, and `tokenizers/bytes.json`, which has no merges.

Digits stand alone, so that arithmetic has one token a digit. The closing token is an entry of the vocabulary and not an
"added token": text that spells it out is encoded as text, and no document can end itself.
`python -m olmix.data.byte_pairs` prints bytes.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"


def _byte_characters() -> list[str]:
    """The printable character that stands for each of the 256 bytes in a byte-level vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(rest)) for byte in range(256)]


def _dump(tokenizer: Tokenizer) -> str:
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = []
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def byte_tokenizer() -> str:
    """The tokenizer.json in which token b is byte b and token 256 closes a document."""
    vocabulary = {character: byte for byte, character in enumerate(_byte_characters())} | {END: 256}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _dump(tokenizer)


def train_tokenizer(documents: Iterable[str], vocabulary: int, end: str = END) -> str:
    """A tokenizer.json of at most `vocabulary` tokens learnt from `documents`, the same in any order."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[end],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer=trainer)
    return _dump(tokenizer)


if __name__ == "__main__":
    print(byte_tokenizer(), end="")
