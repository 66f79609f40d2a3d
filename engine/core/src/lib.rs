//! The words of Lastword as types.
