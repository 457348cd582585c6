"""Autoregressive decoding: sampling, speculative decoding, text in whole characters, the output filter."""
