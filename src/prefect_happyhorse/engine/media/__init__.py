"""Pictures and videos themselves: formats, measures, thumbnails and films."""
