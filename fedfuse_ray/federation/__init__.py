"""The federation as pure logic: no Ray, no files but checkpoints, every state explicit."""
