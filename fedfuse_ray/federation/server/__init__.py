"""What the server does with updates: accept, sum, step. Nothing here sees a specimen."""
