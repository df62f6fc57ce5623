"""From files of vectors to what the rows of a table start as; no torch."""
