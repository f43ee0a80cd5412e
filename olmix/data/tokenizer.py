"""A tokeniser is a Hugging Face `tokenizer.json`; its content, not its path, is part of a dataset's identity.

Bytes are no special case: `tokenizers/bytes.json` is a byte-level tokeniser without merges.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import xxhash
from numpy.typing import NDArray

from olmix.errors import DataError
from tokenizers import Tokenizer as _Backend

Tokens = NDArray[np.unsignedinteger[Any]]


class Tokenizer:
    """Text to token ids, with the end-of-document id that closes every document."""

    def __init__(self, path: Path, end_of_document: str) -> None:
        """Read `path`; raises DataError when it is no tokenizer.json or has no token `end_of_document`."""
        try:
            raw = path.read_bytes()
            canonical = orjson.dumps(orjson.loads(raw), option=orjson.OPT_SORT_KEYS)
            self._backend = _Backend.from_buffer(raw)
        except FileNotFoundError:
            raise DataError(
                f"{path}: no such tokeniser; name a tokenizer.json in params.yaml: tokenizer.path"
            ) from None
        except Exception as error:  # the library raises bare Exception for a file it cannot read
            reason = str(error).splitlines()[0]
            raise DataError(f"{path}: not a Hugging Face tokenizer.json ({reason})") from None
        self.path = path
        # Padding and truncation kept in a tokenizer.json would silently change what is trained on.
        self._backend.no_padding()
        self._backend.no_truncation()
        self.vocabulary = self._backend.get_vocab_size(with_added_tokens=True)
        end = self._backend.token_to_id(end_of_document)
        if end is None:
            raise DataError(f"{path}: no token {end_of_document!r}; set params.yaml: tokenizer.end_of_document")
        self.end = int(end)
        # The key order and white space of the file are not the tokeniser's; its content and closing token are.
        self.digest = xxhash.xxh3_128_hexdigest(canonical + b"\x1f" + end_of_document.encode())
        self.dtype = np.dtype("<u2" if self.vocabulary <= 2**16 else "<u4")

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """One array of ids a text, without special tokens and without the end-of-document id."""
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=self.dtype) for encoding in encodings]

    def decode(self, tokens: Tokens) -> str:
        """The text of `tokens`."""
        return str(self._backend.decode(tokens.tolist(), skip_special_tokens=False))
