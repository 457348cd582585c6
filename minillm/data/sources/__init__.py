"""Where documents come from: files of many kinds, bundled corpora, seeded grammars."""
