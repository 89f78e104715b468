"""One file a command of the command line, named as the command; nothing here computes."""
