"""What travels between institutions and server: records, transforms, codecs, bytes on the wire."""
