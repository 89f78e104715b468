"""From presets, files and overrides to a validated experiment; `settings` knows none of these."""
