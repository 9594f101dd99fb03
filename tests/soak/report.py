"""What a scenario found: figures for people, and violations, of which there should be none."""

from collections import Counter

# More of one kind say no more.
_ENOUGH = 5


class Report:
    """Figures and violations of one run."""

    def __init__(self, title: str) -> None:
        self.title = title
        #: What they are called, and they.
        self.figures: list[tuple[str, str]] = []
        self.violations: list[str] = []
        self._kinds: Counter[str] = Counter()

    def figure(self, name: str, value: object) -> None:
        self.figures.append((name, str(value)))

    def violated(self, what: str, example: object = "") -> None:
        """Notes that something is wrong; of each kind only the first few are kept, with what shows it."""
        self._kinds[what] += 1
        if self._kinds[what] <= _ENOUGH:
            self.violations.append(f"{what}: {example}" if example != "" else what)

    def must(self, holds: bool, what: str, example: object = "") -> None:
        """Notes what does not hold."""
        if not holds:
            self.violated(what, example)

    def text(self) -> str:
        """A table of the figures, then what was violated, the verdict last."""
        width = max((len(name) for name, _ in self.figures), default=0)
        lines = [f"== {self.title}", *(f"   {name:<{width}}  {value}" for name, value in self.figures)]
        lines += [f"   VIOLATED {violation}" for violation in self.violations]
        more = self._kinds.total() - len(self.violations)
        lines += [f"   and {more} more like these"] if more else []
        return "\n".join([*lines, "   ok" if not self.violations else f"   FAILED ({self._kinds.total()})"])


def counted(counts: Counter[str]) -> str:
    """Counts in one line."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())
