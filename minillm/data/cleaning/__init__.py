"""Quality filters, language identification, personal data; and the report on what they dropped."""
