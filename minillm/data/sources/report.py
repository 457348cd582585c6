"""A report of what a reader yielded, and of what it skipped and why."""
from dataclasses import dataclass, field

from ...storage.atomic import printable

EXTRA = "minillm[data]"
NEEDS_EXTRA = f"of a kind that needs pip install '{EXTRA}'"
EXAMPLES = 3                # names kept for each reason to skip


class Unusable(Exception):
    """A file or record that cannot be used; the message is the reason counted in the report."""


@dataclass
class Report:
    """What was read, `documents` and their UTF-8 `bytes`; `skipped` {reason: count}; `examples` {reason: names}."""
    documents: int = 0
    bytes: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def clear(self) -> None:
        """Forget everything: the same files are read again."""
        self.documents = self.bytes = 0
        self.skipped, self.examples = {}, {}

    def skip(self, name: str, reason: str) -> None:
        """Count a file or record that is left out."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        names = self.examples.setdefault(reason, [])
        if len(names) < EXAMPLES:
            names.append(printable(name))

    def __str__(self) -> str:
        read = f"{self.documents:,} document{'s' * (self.documents != 1)}, {self.bytes / 1e6:.2f} MB of text"
        return f"{read}; {self.skipped_in_words()}"

    def skipped_in_words(self) -> str:
        """What was left out and why; a line of its own, not to be overlooked, on what an extra would read."""
        if not self.skipped:
            return "nothing skipped."
        reasons = [f"{count} {reason} ({', '.join(self.examples[reason])}{', ...' if count > EXAMPLES else ''})"
                   for reason, count in sorted(self.skipped.items(), key=lambda item: (-item[1], item[0]))]
        text = f"skipped {sum(self.skipped.values())}: {'; '.join(reasons)}."
        lacking = self.skipped.get(NEEDS_EXTRA)
        if lacking:
            text += (f"\nATTENTION: {lacking} file{'s were' if lacking > 1 else ' was'} NOT READ, for want of a "
                     f"library: pip install '{EXTRA}'")
        return text
