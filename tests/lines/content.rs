//! Content: what is in a file that is no plain text, or that is no file.
