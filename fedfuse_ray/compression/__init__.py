"""Codecs: an update as few bytes; one file a codec, one contract for all."""
