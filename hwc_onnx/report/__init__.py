"""What people and programs read: tables, progress lines and JSON payloads. Formats figures, never makes them."""
