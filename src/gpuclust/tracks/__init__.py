"""Music tracks: presets, the generated catalogue, playlists and previews. Other packages work on tables in general."""
