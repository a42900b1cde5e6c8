"""Import abstracts into a KB: each for the entity that its id or its title names, as one transaction.

In: files of abstracts, and a table that maps titles to ids.  Out: texts of source `abstract`, and counts of what fitted
and what did not.  After a kill or with a bad line the KB stays as it was.  A title is never guessed: the table maps it
or, on request, it is the label of exactly one entity."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from localmel.errors import BadInput, UsageError
from localmel.kb.importers.abstracts import MOST_CHARACTERS, AbstractRow, AbstractSource, page_title, plain_abstract
from localmel.kb.importers.reading import Problems, excerpt, read_blocks, size_of
from localmel.kb.schema import batches
from localmel.kb.texts import ABSTRACT, keep_rows, prepare_texts, rows_of
from localmel.kb.write import writing
from localmel.records import EntityId
from localmel.store import progress

_AT_ONCE = 500
_LEAST_MOST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class AbstractsRead:
    """The counts of an import of abstracts."""

    abstracts: int
    "Abstracts read, in the language."
    kept: int
    unknown: int
    "Whose id or title leads to no entity of the KB."
    ambiguous: int
    "Whose title is the label of several entities."
    empty: int
    "With nothing left after cleaning."
    twice: int
    "For an entity that already had one in this import; the first counts."
    cut: int
    "Kept but cut at the limit."
    passed_over: dict[str, int]
    "Statements that are not abstracts in the language, by reason."
    problems: int
    "Lines that could not be used."


def import_abstracts(
    folder: Path,
    paths: Sequence[Path],
    problems: Problems,
    *,
    titles: Path | None = None,
    by_label: bool = False,
    language: str = "en",
    most: int = MOST_CHARACTERS,
) -> AbstractsRead:
    """Read the files into the KB in `folder`; the previous abstract of an entity is replaced.

    `titles` is a table with a title, a tab and an id per line.  With `by_label` a title that it lacks means the entity
    with exactly this label, if there is only one.  Raises UsageError for a limit that is too small and BadInput if no
    abstract fits; nothing is changed then."""
    if most < _LEAST_MOST:
        raise UsageError(
            f"{most} characters are too few for an abstract; the least is {_LEAST_MOST}",
            hint=f"--most {MOST_CHARACTERS}",
        )
    sources = [AbstractSource(path, language=language, problems=problems) for path in paths]
    progress.begin("reading abstracts", sum(source.total_bytes for source in sources) + size_of(titles))
    with writing(folder) as connection:
        prepare_texts(connection)
        pages = _Pages(connection, titles, problems, by_label=by_label)
        counts: Counter[str] = Counter()
        keep_rows(connection, ABSTRACT, "", _values(sources, pages, counts, most))
        problems.finish()
        passed_over = sum((source.passed_over for source in sources), Counter[str]())
        if not counts["kept"]:
            raise _nothing_kept(folder, counts, passed_over, language)
    names = ("abstracts", "kept", "unknown", "ambiguous", "empty", "twice", "cut")
    return AbstractsRead(
        **{name: counts[name] for name in names}, passed_over=dict(passed_over), problems=problems.count
    )


def _nothing_kept(folder: Path, counts: Counter[str], passed_over: Counter[str], language: str) -> BadInput:
    reasons = {**passed_over, **{name: counts[name] for name in ("unknown", "ambiguous", "empty")}}
    said = ", ".join(f"{name}: {n:,}" for name, n in reasons.items() if n)
    if not counts["abstracts"]:
        fact = f"the files hold no abstract in language {language!r}"
        return BadInput(f"{fact} ({said})" if said else fact, hint="localmel kb abstracts --help")
    return BadInput(
        f"none of {counts['abstracts']:,} abstracts was kept in kb {folder.name!r} ({said})",
        hint="--titles FILE, or --by-label   # if the file names pages by their titles",
    )


def _values(
    sources: Iterable[AbstractSource], pages: _Pages, counts: Counter[str], most: int
) -> Iterator[tuple[int, str, dict[str, object]]]:
    """Yield row, text and facts of each abstract that is kept."""
    seen: set[int] = set()
    rows = (row for source in sources for row in source.rows())
    while batch := list(islice(rows, _AT_ONCE)):
        for read, row in zip(batch, pages.rows_of(batch), strict=True):
            counts["abstracts"] += 1
            if isinstance(row, str):
                counts[row] += 1
                continue
            if row in seen:
                counts["twice"] += 1
                continue
            abstract = plain_abstract(read.text, most=most)
            if not abstract.text:
                counts["empty"] += 1
                continue
            seen.add(row)
            counts["kept"] += 1
            counts["cut"] += abstract.was_cut
            yield row, abstract.text, {"from": Path(read.source).name, **({"cut": True} if abstract.was_cut else {})}


class _Pages:
    """Finds the entity that a page is about."""

    def __init__(
        self, connection: sqlite3.Connection, titles: Path | None, problems: Problems, *, by_label: bool
    ) -> None:
        self._connection, self._by_label = connection, by_label
        self._rows = dict(_mapped(connection, titles, problems)) if titles else {}

    def rows_of(self, batch: Sequence[AbstractRow]) -> list[int | str]:
        """Return the row of each in the KB, or why it has none: `unknown` or `ambiguous`."""
        by_id = rows_of(self._connection, list({read.entity_id for read in batch if read.entity_id}))
        wanted = {read.title for read in batch if read.title and read.title not in self._rows}
        by_label = self._labelled(sorted(wanted)) if self._by_label and wanted else {}
        found: list[int | str] = []
        for read in batch:
            if read.entity_id:
                found.append(by_id.get(read.entity_id, "unknown"))
            else:
                found.append(self._rows.get(read.title) or by_label.get(read.title, "unknown"))
        return found

    def _labelled(self, titles: Sequence[str]) -> dict[str, int | str]:
        """Map titles to the only entity with this label, whose first letter may be small."""
        spelled = {each: title for title in titles for each in (title, title[:1].lower() + title[1:])}
        bearers: dict[str, set[int]] = {}
        for some, marks in batches(list(spelled)):
            for label, row in self._connection.execute(
                f"SELECT label, row FROM entities WHERE label IN ({marks})", some
            ):
                bearers.setdefault(spelled[label], set()).add(int(row))
        return {title: rows.pop() if len(rows) == 1 else "ambiguous" for title, rows in bearers.items()}


def _mapped(connection: sqlite3.Connection, path: Path, problems: Problems) -> Iterator[tuple[str, int]]:
    """Yield title and row for ids that the KB has, so that the KB bounds memory, not the file."""
    for block in read_blocks(path, problems):
        pairs: list[tuple[str, EntityId]] = []
        for number, line in enumerate(block.lines, block.first):
            title, tab, entity_id = line.partition("\t")
            if tab and title.strip() and entity_id.strip():
                pairs.append((page_title(title), entity_id.strip()))
            elif line.strip():
                problems.report(f"not a title, a tab and an id: {excerpt(line)}", path, number)
        rows = rows_of(connection, list({entity_id for _, entity_id in pairs}))
        yield from ((title, rows[entity_id]) for title, entity_id in pairs if entity_id in rows)
