//! `perennial.v1.Message`, as an item of `MessagesResponse.messages`.
