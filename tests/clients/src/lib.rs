//! Tests that the world's own tools can use what Anneal writes.
