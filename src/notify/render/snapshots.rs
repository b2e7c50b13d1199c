//! What people read, in every state and both languages.
