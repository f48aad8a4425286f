"""From files on disk to cases: discovery, readers, geometry, masks, the manifest."""
