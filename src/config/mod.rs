//! Composed later in this change.
