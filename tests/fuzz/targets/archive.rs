//! Files of a directory as one input: for each its name, a NUL, the number of its bytes as u32, and these.

/// The input for these files.
pub fn pack<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in files {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&u32::try_from(content.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(content);
    }
    bytes
}

/// The files of any input: the last one may be shorter than it says.
pub fn unpack(mut bytes: &[u8]) -> Vec<(String, &[u8])> {
    let mut files = Vec::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        let name = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let Some((length, rest)) = bytes[end + 1..].split_first_chunk::<4>() else { break };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap().min(rest.len());
        files.push((name, &rest[..length]));
        bytes = &rest[length..];
    }
    files
}
