"""Tools to check one's own work: gradient checks of every implementation of every op."""
