"""Pictures, videos and sounds themselves: formats, measures, thumbnails and films."""
