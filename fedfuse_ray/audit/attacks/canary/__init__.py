"""What releases show of canaries, and what that proves; no canary is made or released here."""
