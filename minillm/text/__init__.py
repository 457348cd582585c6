"""What a piece of text holds: personal data, toxicity. And the pages that reports are written on."""
