"""What a piece of text holds: personal data, toxicity."""
