//! The embedded sync database in which the server has the last word.
