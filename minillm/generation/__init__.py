"""Autoregressive decoding: sampling, speculative decoding, text streamed in whole characters, the output filter."""
