//! A longer one.
