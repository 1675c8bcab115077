//! Growth: lines that come in parts, long ones, and writers of all kinds.
