"""From presets, files and overrides to a validated experiment."""
