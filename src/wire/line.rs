//! `perennial.v1.Line`, as an item of `ReadLinesResponse.lines`.
