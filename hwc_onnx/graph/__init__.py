"""Reading a model: loop dimensions, layers, channel and activation groups."""
