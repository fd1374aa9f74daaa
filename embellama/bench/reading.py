"""The user's files, read and checked before anything is measured; complaints name the line."""

from __future__ import annotations

import codecs
import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embellama.errors import EmptyInputError, InvalidInputError

PAIR_COLUMNS = ("score", "sentence1", "sentence2")

_NAMED = 5
"""Lines and ids that a message spells out."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Sentences that people compared.

    Attributes:
        first: One sentence of each pair.
        second: The other.
        scores: How alike they are, in any unit.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """All sentences, no two alike."""
        return tuple(dict.fromkeys((*self.first, *self.second)))

    def thinned(self, count: int) -> Pairs:
        """Return so many of the pairs, spread over them all."""
        chosen = [i * len(self.scores) // count for i in range(count)]
        return Pairs(
            tuple(self.first[i] for i in chosen),
            tuple(self.second[i] for i in chosen),
            tuple(self.scores[i] for i in chosen),
        )


@dataclass(frozen=True, slots=True)
class Relevance:
    """Queries, and how well documents answer them.

    Attributes:
        documents: Texts to search.
        queries: Those that have a relevant document.
        judged: For each query how relevant documents are, by their index.
    """

    documents: tuple[str, ...]
    queries: tuple[str, ...]
    judged: tuple[Mapping[int, float], ...]


def read_texts(path: Path) -> tuple[str, ...]:
    """Read one text a line.

    Raises:
        InvalidInputError: The file cannot be read, has no text, or has blank lines.
    """
    lines = _lines(path)
    if blank := [number for number, line in lines if not line.strip()]:
        raise EmptyInputError(
            f"{_named(path)}, {_listed('line', blank)}: blank, nothing to embed; take it out"
        )
    return tuple(line for _, line in lines)


def read_pairs(path: Path) -> Pairs:
    """Read a table with a header; of its columns score, sentence1 and sentence2 are used.

    Columns are parted by tabs, and quotation marks are then marks like others; without a tab in
    the header by commas, with CSV's quoting.

    Raises:
        InvalidInputError: The file cannot be read, a column is missing, or a row cannot be used.
    """
    rows = _rows(path)
    _, header = next(rows)
    names = [name.strip().lower() for name in header]
    if missing := [name for name in PAIR_COLUMNS if name not in names]:
        raise InvalidInputError(
            f"{_named(path)}, line 1: no column {' or '.join(missing)} in the header (it has: "
            f"{', '.join(names)}); the first line names the columns, parted by tabs"
        )
    places = [names.index(name) for name in PAIR_COLUMNS]
    scores, first, second = [], [], []
    for number, row in rows:
        if len(row) != len(names):
            raise InvalidInputError(
                f"{_named(path)}, line {number}: {len(row)} columns, and the header has "
                f"{len(names)}"
            )
        score, one, other = (row[place].strip() for place in places)
        if not one or not other:
            raise EmptyInputError(f"{_named(path)}, line {number}: a sentence is blank")
        scores.append(_number(score, path, number, "score"))
        first.append(one)
        second.append(other)
    if len(set(scores)) < 2:
        raise InvalidInputError(
            f"{_named(path)} has {len(scores)} pairs with {len(set(scores))} different scores; a "
            "rank correlation needs two"
        )
    return Pairs(tuple(first), tuple(second), tuple(scores))


def read_relevance(texts: Path, queries: Path, qrels: Path) -> Relevance:
    """Read documents, queries and judgements, and bring them together by their ids.

    Queries without a relevant document are left out, as trec_eval does.

    Raises:
        InvalidInputError: A file cannot be read or used, or judgements name what is not there.
    """
    documents, asked = _identified(texts), _identified(queries)
    judgements = _judgements(qrels)
    _check_known({query for query, _ in judgements}, asked, "queries", qrels, queries)
    _check_known({document for _, document in judgements}, documents, "documents", qrels, texts)
    index = {identifier: at for at, identifier in enumerate(documents)}
    judged: dict[str, dict[int, float]] = {}
    for (query, document), judgement in judgements.items():
        judged.setdefault(query, {})[index[document]] = judgement
    kept = [query for query in asked if any(v > 0 for v in judged.get(query, {}).values())]
    if not kept:
        raise InvalidInputError(
            f"{_named(qrels)} judges no document above 0 for any of the {len(asked)} queries of "
            f"{_named(queries)}; nDCG needs one"
        )
    return Relevance(
        tuple(documents.values()),
        tuple(asked[query] for query in kept),
        tuple(judged[query] for query in kept),
    )


def _check_known(
    wanted: set[str], known: Mapping[str, str], what: str, qrels: Path, file: Path
) -> None:
    if unknown := sorted(wanted - known.keys()):
        raise InvalidInputError(
            f"{_named(qrels)} judges {len(unknown)} {what} that {_named(file)} does not have "
            f"({', '.join(unknown[:_NAMED])}{'…' if len(unknown) > _NAMED else ''}; its own ids "
            f"are like {', '.join(list(known)[:3])}); give the files that belong together"
        )


def _identified(path: Path) -> dict[str, str]:
    """Read ``id<TAB>text`` lines."""
    found: dict[str, str] = {}
    for number, line in _lines(path):
        identifier, tab, text = line.partition("\t")
        identifier = identifier.strip()
        if not tab or not identifier or not text.strip():
            raise InvalidInputError(
                f"{_named(path)}, line {number}: not of the form `id<TAB>text`, which relevance "
                "needs to name texts by"
            )
        if identifier in found:
            raise InvalidInputError(
                f"{_named(path)}, line {number}: the id {identifier!r} is there twice; take one out"
            )
        found[identifier] = text.strip()
    return found


def _judgements(path: Path) -> dict[tuple[str, str], float]:
    """Read lines in TREC's form. Source: https://trec.nist.gov/data/qrels_eng/."""
    found: dict[tuple[str, str], float] = {}
    for number, line in _lines(path):
        fields = line.split()
        if len(fields) != 4:
            raise InvalidInputError(
                f"{_named(path)}, line {number}: {len(fields)} columns; a judgement has four: "
                "query id, 0, document id, relevance"
            )
        key = fields[0], fields[2]
        if key in found:
            raise InvalidInputError(
                f"{_named(path)}, line {number}: document {key[1]!r} is judged twice for query "
                f"{key[0]!r}; take one out"
            )
        found[key] = _number(fields[3], path, number, "relevance")
    return found


def _number(text: str, path: Path, line: int, what: str) -> float:
    try:
        value = float(text)
    except ValueError as exc:
        raise InvalidInputError(
            f"{_named(path)}, line {line}: the {what} {text!r} is no number"
        ) from exc
    if not math.isfinite(value):
        raise InvalidInputError(f"{_named(path)}, line {line}: the {what} {text!r} is not finite")
    return value


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    lines = _lines(path)
    texts = [line for _, line in lines]
    # what has tabs is plain TSV: a quotation mark at the beginning of a sentence quotes nothing
    if "\t" in texts[0]:
        reader = csv.reader(texts, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(f"{text}\n" for text in texts)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as exc:
        raise InvalidInputError(
            f"{_named(path)}, line {reader.line_num}: no row of a table ({exc})"
        ) from exc


def _lines(path: Path) -> list[tuple[int, str]]:
    """Read a file's lines with their numbers, from 1."""
    try:
        data = path.expanduser().read_bytes().removeprefix(codecs.BOM_UTF8)
    except (OSError, RuntimeError) as exc:
        why = (exc.strerror if isinstance(exc, OSError) else None) or exc
        raise InvalidInputError(f"cannot read {str(path)!r}: {why}") from exc
    raw = data.split(b"\n")
    if raw[-1] in (b"", b"\r"):
        raw.pop()
    if not raw:
        raise InvalidInputError(f"{_named(path)} is empty; a line is a text")
    return [(number, _decoded(line, path, number)) for number, line in enumerate(raw, start=1)]


def _decoded(raw: bytes, path: Path, number: int) -> str:
    try:
        return raw.rstrip(b"\r").decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidInputError(
            f"{_named(path)}, line {number} is not UTF-8 (byte 0x{raw[exc.start]:02x} at "
            f"{exc.start + 1}); convert it first, for example with iconv"
        ) from exc


def _named(path: Path) -> str:
    return repr(str(path))


def _listed(what: str, numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    plural = "s" if len(numbers) > 1 else ""
    return f"{what}{plural} {', '.join(map(str, numbers[:_NAMED]))}{more}"
