"""A server of OpenAI's protocol: `engine` batches requests, `protocol` reads and writes them, `app` is HTTP."""
