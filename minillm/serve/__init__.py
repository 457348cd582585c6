"""A server of OpenAI's protocol: `engine` is continuous batching, `protocol` the form of requests, `app` HTTP."""
