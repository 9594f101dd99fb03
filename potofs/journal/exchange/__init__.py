"""Export and import of one conversation, as JSON or CSV; nothing is lost on the way, in either direction.

JSON is an array of messages in the document's form, one a line as potofs writes it, laid out in any way as it reads it:

    [
    {"role": "user", "content": "Hello", "timestamp": "2024-01-15T10:30:00.000Z", "metadata": {"tokens": 2}},
    {"role": "assistant", "content": "Hi!\\n", "timestamp": "2024-01-15T10:30:01.000Z", "name": "Poto"}
    ]

CSV is as RFC 4180 has it, in UTF-8: a header, then one row a message. Metadata and whatever other keys a message has
are JSON, each in its column; empty says that there is none, `{}` is an empty mapping. Text stays what it is, whatever
a spreadsheet may take it for (`=1+1`). Columns may stand in any order, and the last two may be missing. Each row has
its line's end, the last one too: a file without that may have been cut off, and is refused.

    role,content,timestamp,metadata,extra
    user,Hello,2024-01-15T10:30:00.000Z,"{""tokens"": 2}",
    assistant,"Hi!
    ",2024-01-15T10:30:01.000Z,,"{""name"": ""Poto""}"

What JSON has no way to write (NaN, infinity) is written as `journal.jsontext` says.

Both ways are streams. What an import takes in is checked to its end, and kept in a temporary file, before the first of
it is stored. A mistake is named with line and column (characters) of the value that is wrong.
"""

from typing import Final, Literal, get_args

from potofs.errors import ConfigError

Format = Literal["json", "csv"]
#: The formats that there are.
FORMATS: Final[tuple[Format, ...]] = get_args(Format)


def check(form: str) -> None:
    """Raises ConfigError unless there is such a format."""
    if form not in FORMATS:
        raise ConfigError(f"no format is called {form!r:.40}: there is {', '.join(FORMATS)}")
