"""One attack a file, and what each needs; no pages here."""
