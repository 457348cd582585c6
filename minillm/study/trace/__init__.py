"""One training step and one decoding step of a model, recorded number by number, and the page that shows them."""
