"""Tables: how they begin, and where README.md keeps them."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

README = Path(__file__).parents[3] / "README.md"


def measured() -> str:
    """When and where this is measured; the sentence is to go on."""
    python, kernel = platform.python_version(), platform.release().split("-")[0]
    when = datetime.now(UTC)
    return f"Measured on {when:%Y-%m-%d} with {os.cpu_count()} cores, Linux {kernel}, Python {python}; "


def short(number: float) -> str:
    """A figure with about three digits."""
    return f"{number:,.{0 if number >= 100 else 1}f}"


def keep(name: str, lines: list[str]) -> None:
    """Puts a table into README.md, between the two marks of its name."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    text = README.read_text()
    before, rest = text.split(begin)
    _, after = rest.split(end)
    README.write_text(f"{before}{begin}{''.join(lines)}{end}{after}")
