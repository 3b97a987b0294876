"""What only music tracks need: presets and the generated catalogue."""
