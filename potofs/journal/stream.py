"""Where one document of a stream ends and the next begins: a search for bytes, no YAML.

`---` or `...` at the beginning of a line, followed by white space or the line's end, is always a boundary in YAML and
never content. A line ends in LF, CR LF or CR; a byte order mark may stand before a document. Two forms need care:

    --- {role: user, …}     the marker ends what stood before it, and begins a document on its own line
    %YAML 1.2               after directives, the next `---` begins their document and ends nothing
    ---

Documents with nothing in them but white space and comments are no documents here: a stream that begins with `---`
or ends with it is as good as one that does not.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"
_MARKER = re.compile(rb"(?<![^\r\n])(?:\xef\xbb\xbf)?(---|\.\.\.)(?=[ \t\r\n]|\Z)")
# With what may stand before it, and a character behind it (bytes).
_LONGEST_MARKER = 7
_LINE_END = re.compile(rb"\r\n|\r|\n")
# Each of these can match in one way only, so that none takes longer than its text is long.
_BLANK_LINES = rb"(?:\xef\xbb\xbf)?(?:[ \t]*(?:#[^\r\n]*)?[\r\n])*"
_BLANK = re.compile(_BLANK_LINES + rb"[ \t]*(?:#[^\r\n]*)?")
_SILENT = re.compile(rb"(?:\xef\xbb\xbf)?(?:(?:---|\.\.\.)?[ \t]*(?:[\r\n]|\Z))*")
_TERMINATOR = re.compile(rb"(?:---|\.\.\.)[ \t]*(?:(?<=[ \t])#[^\r\n]*)?[\r\n]+")
_DIRECTIVE = re.compile(_BLANK_LINES + rb"%")
# Nothing but directives, and only YAML's own: a line of garbage with a % must not take the next record with it.
_DIRECTIVES = re.compile(_BLANK_LINES + rb"(?:%(?:YAML|TAG)[ \t][^\r\n]*[\r\n](?:[ \t]*(?:#[^\r\n]*)?[\r\n])*)+")
# A stream with none of these has only one kind of boundary, our own terminator.
_OTHER_FORMS = (b"\r", b"\n...", b"\n--- ", b"\n---\t", b"\n%", b"\n#", _BOM)


class Document(NamedTuple):
    """One document of a stream, as offsets in it (bytes)."""

    #: Where its text begins (a `---` with content on its line belongs to it).
    start: int
    #: Where its text ends, before the marker.
    end: int
    #: Where the next document may begin: after the marker's line, or at the marker if that document is on its line.
    stop: int
    #: Whether a marker ends it, so that it is committed.
    terminated: bool


def documents(data: bytes) -> Iterator[Document]:
    """The documents of a stream in their order; the last may be unterminated."""
    if data[:3] in (b"---", b"...") or data[:1] in (b"%", b"#") or any(form in data for form in _OTHER_FORMS):
        return _documents(data)
    return _plain_documents(data)


def ended(data: bytes) -> Iterator[Document]:
    """The documents of a stream that still goes on whose terminators are there, line ends and all."""
    for document in documents(data):
        if not document.terminated or (document.stop == len(data) and data[-1:] not in b"\r\n"):
            return
        yield document


def is_blank(text: bytes) -> bool:
    """Whether there is nothing in it but white space and comments."""
    return _BLANK.fullmatch(text) is not None


def says_nothing(text: bytes) -> bool:
    """Whether there are only white space and markers in it, not even a comment."""
    return _SILENT.fullmatch(text) is not None


def has_marker(data: bytes, start: int) -> bool:
    """Whether a marker begins at `start` or behind it."""
    return _MARKER.search(data, start) is not None


def unsearched(data: bytes, searched: int) -> int:
    """Where the next marker may begin in data of which so much was searched before, without an ended one (bytes)."""
    # It may have been cut in two, but not where the last line is long and begins otherwise.
    line = max(data.rfind(b"\n", 0, searched), data.rfind(b"\r", 0, searched)) + 1
    is_other = searched - line > _LONGEST_MARKER and not _MARKER.match(data, line)
    return searched if is_other else line


def begins_with_directive(text: bytes) -> bool:
    """Whether the first thing that it says is a line with a %."""
    return _DIRECTIVE.match(text) is not None


def ends_in_marker(line: bytes) -> bool:
    """Whether a line, with its end, is a terminator."""
    return _TERMINATOR.fullmatch(line) is not None


def _plain_documents(data: bytes) -> Iterator[Document]:
    start = 0
    # From one byte before: two markers in a row share the newline between them.
    while (end := data.find(b"\n---\n", max(0, start - 1))) >= 0:
        if not is_blank(data[start : end + 1]):
            yield Document(start, end + 1, end + 5, True)
        start = end + 5
    # The marker may be the stream's last line and lack its newline.
    terminated = data.endswith(b"\n---", max(0, start - 1))
    end = len(data) - 3 if terminated else len(data)
    if not is_blank(data[start:end]):
        yield Document(start, end, len(data), terminated)


def _documents(data: bytes) -> Iterator[Document]:
    start = 0
    for marker in _MARKER.finditer(data):
        at = marker.start()
        if marker[1] == b"---" and _DIRECTIVES.fullmatch(data, start, at):
            continue
        line_end = _line_end(data, marker.end())
        # What follows on the marker's line is the next document's, unless it is only a comment.
        stop = at if marker[1] == b"---" and not is_blank(data[marker.end() : line_end]) else line_end
        if not is_blank(data[start:at]):
            yield Document(start, at, stop, True)
        start = stop
    if not is_blank(data[start:]):
        yield Document(start, len(data), len(data), False)


def _line_end(data: bytes, at: int) -> int:
    found = _LINE_END.search(data, at)
    return found.end() if found else len(data)
