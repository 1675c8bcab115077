//! The number of elements of repeated fields, counted in the bytes of a request before it is decoded.
//!
//! An empty element has two bytes in a request and about two hundred in memory. So the number is checked first.

/// A field with elements, or with a message that has such fields.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Field {
    /// The number of the field.
    pub number: u64,
    /// The name of the field.
    pub name: &'static str,
    /// The noun for its elements in error texts.
    pub noun: &'static str,
    /// Up to this many elements; `None` for a field that is not repeated.
    pub limit: Option<usize>,
    /// The fields of each element.
    pub fields: Vec<Field>,
}

/// A field with more elements than its limit.
#[derive(Debug, Eq, PartialEq)]
pub struct Excess {
    /// The field, as in `messages[2].headers`.
    pub field: String,
    /// The noun for its elements.
    pub noun: &'static str,
    /// The number of its elements.
    pub count: usize,
    /// The limit.
    pub limit: usize,
}

/// Counts the elements of these fields. Bytes that cannot be decoded are left to the decoder.
///
/// # Errors
/// The first field that has too many.
pub fn check(message: &[u8], fields: &[Field]) -> Result<(), Excess> {
    if fields.is_empty() {
        return Ok(());
    }
    for field in fields {
        let count = elements(message, field.number).count();
        if let Some(limit) = field.limit.filter(|limit| count > *limit) {
            return Err(Excess { field: field.name.into(), noun: field.noun, count, limit });
        }
        if field.fields.is_empty() {
            continue;
        }
        for (index, element) in elements(message, field.number).enumerate() {
            check(element, &field.fields).map_err(|excess| {
                let index = field.limit.map(|_| format!("[{index}]")).unwrap_or_default();
                Excess { field: format!("{}{index}.{}", field.name, excess.field), ..excess }
            })?;
        }
    }
    Ok(())
}

/// The contents of the length-delimited fields with this number, until the bytes end or cannot be decoded.
fn elements(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    let mut rest = message;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (tag, content) = field(&mut rest)?;
            if tag >> 3 == number && tag & 7 == 2 {
                return Some(content);
            }
        }
        None
    })
}

/// The tag of the next field and its content, which is empty unless the field is length-delimited.
fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let tag = varint(rest)?;
    let length = match tag & 7 {
        0 => {
            varint(rest)?;
            return Some((tag, &[]));
        }
        1 => 8,
        2 => usize::try_from(varint(rest)?).ok()?,
        // The start and the end of a group: its fields follow as if they were of this message. No contract of ours has
        // groups, and the decoder limits how deep they nest.
        3 | 4 => 0,
        5 => 4,
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some((tag, content))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (index, byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index).min(63);
        if byte & 0x80 == 0 {
            *rest = rest.get(index + 1..)?;
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto;

    fn headers() -> Field {
        Field { number: 5, name: "headers", noun: "headers", limit: Some(2), fields: Vec::new() }
    }

    fn batch() -> Vec<Field> {
        vec![Field { number: 1, name: "messages", noun: "messages", limit: Some(3), fields: vec![headers()] }]
    }

    fn request(headers: &[usize]) -> Vec<u8> {
        let message = |count: &usize| proto::PublishRequest {
            topic: "a".into(),
            headers: (0..*count).map(|n| (n.to_string(), String::new())).collect(),
            expected_sequence: Some(-1),
            ..Default::default()
        };
        proto::PublishBatchRequest { messages: headers.iter().map(message).collect() }.encode_to_vec()
    }

    #[test]
    fn elements_are_counted_at_every_level_and_the_field_is_named() {
        assert_eq!(check(&request(&[0, 1, 2]), &batch()), Ok(()));
        let excess = check(&request(&[0; 4]), &batch()).unwrap_err();
        assert_eq!(excess, Excess { field: "messages".into(), noun: "messages", count: 4, limit: 3 });
        let excess = check(&request(&[0, 3]), &batch()).unwrap_err();
        assert_eq!(
            excess,
            Excess { field: "messages[1].headers".into(), noun: "headers", count: 3, limit: 2 }
        );
    }

    #[test]
    fn a_message_that_is_not_repeated_has_no_index() {
        let fields = vec![Field { limit: None, ..batch().remove(0) }];
        let excess = check(&request(&[3]), &fields).unwrap_err();
        assert_eq!(excess.field, "messages.headers");
    }

    #[test]
    fn bytes_that_cannot_be_decoded_are_left_to_the_decoder() {
        for bytes in [
            &[0x0a][..],
            &[0x0a, 5, 1],
            &[0xff; 30],
            &[0x0f],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        ] {
            assert_eq!(check(bytes, &batch()), Ok(()), "{bytes:?}");
        }
        // All kinds of fields before the elements.
        let others = [
            &[0x10, 0x96, 1, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x25, 1, 2, 3, 4, 0x33, 0x34][..],
            &request(&[0; 4]),
        ];
        assert_eq!(check(&others.concat(), &batch()).unwrap_err().count, 4);
    }
}
