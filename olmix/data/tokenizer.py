"""A tokeniser is a Hugging Face `tokenizer.json`; its content, not its path, is part of a dataset's identity.

Bytes are no special case: `tokenizers/bytes.json` is a byte-level tokeniser without merges. Nor are corpora that are
token ids already and have no tokeniser at hand: `tokenizers/ids.json` says how many ids there are, and reads no text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import xxhash
from numpy.typing import NDArray

from olmix.cores import cores
from olmix.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Backend

Tokens = NDArray[np.unsignedinteger[Any]]


_IDS = "token ids"
# Text that is encoded at once, for each core: what the library holds of a token takes a hundred bytes.
BATCH_BYTES = 128 << 10


class Tokenizer:
    """Text to token ids, with the end-of-document id that closes every document.

    `vocabulary` is the number of ids, `end` the id that closes a document, `dtype` the type that holds every id, and
    `digest` identifies the tokeniser. One of ids alone has `reads_text` False, and cannot encode or decode.
    """

    def __init__(self, path: Path, end_of_document: str | int) -> None:
        """Read `path`, a tokenizer.json or a file like tokenizers/ids.json; `end_of_document` is a token or its id.

        Raises DataError when it is neither, or has no such token.
        """
        try:
            raw = path.read_bytes()
            content = orjson.loads(raw)
        except FileNotFoundError:
            raise DataError(
                "no such tokeniser", file=path, way_out="name a tokenizer.json in params.yaml: tokenizer.path"
            ) from None
        except (OSError, orjson.JSONDecodeError) as error:
            raise DataError(f"not a Hugging Face tokenizer.json ({str(error).splitlines()[0]})", file=path) from None
        self.path = path
        self.reads_text = not (isinstance(content, dict) and content.get("kind") == _IDS)
        if self.reads_text:
            self._backend = _read_backend(path, raw)
            self.vocabulary = self._backend.get_vocab_size(with_added_tokens=True)
        else:
            self.vocabulary = _read_ids(path, content)
        self.end = self._id_of(end_of_document)
        # The key order and white space of the file are not the tokeniser's; its content and closing token are.
        canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
        self.digest = xxhash.xxh3_128_hexdigest(canonical + b"\x1f" + str(end_of_document).encode())
        self.dtype = np.dtype("<u2" if self.vocabulary <= 2**16 else "<u4")

    def _id_of(self, end: str | int) -> int:
        number: int | None = end if isinstance(end, int) else None
        if isinstance(end, str):
            if not self.reads_text:
                raise DataError(
                    f"has only ids, so tokenizer.end_of_document must be an id, not {end!r}",
                    file=self.path,
                    way_out="set params.yaml: tokenizer.end_of_document to an id",
                )
            number = self._backend.token_to_id(end)
        if number is None or not 0 <= number < self.vocabulary:
            what = f"token {end!r}" if isinstance(end, str) else f"id {end} among its {self.vocabulary:,}"
            raise DataError(f"no {what}", file=self.path, way_out="set params.yaml: tokenizer.end_of_document")
        return int(number)

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """One array of ids a text, without special tokens and without the end-of-document id."""
        self._require_text()
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=self.dtype) for encoding in encodings]

    def encode_stream(self, documents: Iterable[bytes]) -> Iterator[Tokens]:
        """The ids of each of many texts (UTF-8), in their order, as `encode` gives them.

        While the ids of one batch are made into arrays the library encodes the next one, on all cores.
        """
        self._require_text()
        with ThreadPoolExecutor(1) as ahead:
            running: Future[list[Encoding]] | None = None
            for batch in _batches(documents, BATCH_BYTES * cores()):
                following = ahead.submit(self._encode_batch, batch)
                if running is not None:
                    yield from self._arrays(running.result())
                running = following
            if running is not None:
                yield from self._arrays(running.result())

    def _encode_batch(self, texts: list[str]) -> list[Encoding]:
        return self._backend.encode_batch_fast(texts, add_special_tokens=False)

    def _arrays(self, encodings: Iterable[Encoding]) -> Iterator[Tokens]:
        for encoding in encodings:
            yield np.array(encoding.ids, dtype=self.dtype)

    def decode(self, tokens: Tokens) -> str:
        """The text of `tokens`."""
        self._require_text()
        return str(self._backend.decode(tokens.tolist(), skip_special_tokens=False))

    def _require_text(self) -> None:
        if not self.reads_text:
            raise DataError(
                "has only ids, so it cannot tokenise text",
                file=self.path,
                way_out=(
                    "use token arrays (.npy, .bin with .idx, .ds) and tasks of ids, or name a "
                    "tokenizer.json in params.yaml: tokenizer.path"
                ),
            )


def _read_backend(path: Path, raw: bytes) -> Backend:
    from tokenizers import Tokenizer as Backend

    try:
        backend = Backend.from_buffer(raw)
    except Exception as error:  # the library raises bare Exception for a file it cannot read
        raise DataError(f"not a Hugging Face tokenizer.json ({str(error).splitlines()[0]})", file=path) from None
    # Padding and truncation kept in a tokenizer.json would silently change what is trained on.
    backend.no_padding()
    backend.no_truncation()
    return backend


def _read_ids(path: Path, content: dict[str, Any]) -> int:
    """The vocabulary of a file that declares ids."""
    vocabulary = content.get("vocabulary")
    if set(content) != {"kind", "vocabulary"} or type(vocabulary) is not int or not 2 <= vocabulary <= 2**32:
        raise DataError(
            f'write only {{"kind": "{_IDS}", "vocabulary": N}}, with N a whole number from 2 to 2^32', file=path
        )
    return vocabulary


def _batches(documents: Iterable[bytes], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    held = 0
    for document in documents:
        batch.append(document.decode())
        held += len(document)
        if held >= size:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
