"""Files that the page carries."""
