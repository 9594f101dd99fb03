"""What a scenario found: figures for people, and violations, of which there should be none."""

from collections import Counter
from collections.abc import Sequence

# More of one kind say no more.
_ENOUGH = 5


class Report:
    """Figures and violations of one run."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.figures: list[str] = []
        self.violations: list[str] = []
        self._kinds: Counter[str] = Counter()

    def figure(self, text: str) -> None:
        self.figures.append(text)

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
        """All of it, the verdict last."""
        more = sum(self._kinds.values()) - len(self.violations)
        lines = [f"== {self.title}", *(f"   {line}" for line in self.figures)]
        lines += [f"   VIOLATED {violation}" for violation in self.violations]
        lines += [f"   and {more} more like these"] if more else []
        return "\n".join([*lines, "   ok" if not self.violations else f"   FAILED ({sum(self._kinds.values())})"])


def quantiles(seconds: Sequence[float]) -> str:
    """Median, 99th percentile and the longest of some times, in milliseconds."""
    ordered = sorted(seconds)
    p50, p99 = (ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] for percent in (50, 99))
    return f"p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms, max {ordered[-1] * 1e3:.2f} ms"
