"""A module that cannot be imported, for the message that says so."""

1 / 0  # noqa: B018
