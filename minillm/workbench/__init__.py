"""Tools to check one's own work: gradients of every implementation of every op."""
