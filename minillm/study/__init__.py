"""To study: exercises that judge, a page that shows every number, the book."""
