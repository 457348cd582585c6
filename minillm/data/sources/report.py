"""A report of what a reader yielded, and of what it skipped and why."""
from dataclasses import dataclass, field

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

    def skip(self, name: str, reason: str) -> None:
        """Count a file or record that is left out."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        names = self.examples.setdefault(reason, [])
        if len(names) < EXAMPLES:
            names.append(name)

    def __str__(self) -> str:
        read = f"{self.documents} documents, {self.bytes / 1e6:.2f} MB of text"
        if not self.skipped:
            return f"{read}; nothing skipped."
        reasons = [f"{count} {reason} ({', '.join(self.examples[reason])}{', ...' if count > EXAMPLES else ''})"
                   for reason, count in sorted(self.skipped.items(), key=lambda item: (-item[1], item[0]))]
        return f"{read}; skipped {sum(self.skipped.values())}: {'; '.join(reasons)}."
