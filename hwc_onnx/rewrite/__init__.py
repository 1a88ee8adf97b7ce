"""Graph rewrites: prune, remove channels, insert QDQ, clean up."""
