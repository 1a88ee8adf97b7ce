"""Search strategies against each other on equal terms: many searches, one table, and who wins."""
