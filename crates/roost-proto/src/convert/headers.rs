//! Headers of commands and messages. On the wire they are a map: order is lost, and the hub sorts
//! them by name, so that a repetition of a command has the same digest.

use std::collections::BTreeMap;

use roost_types::Headers;

use super::Violation;

/// The most headers that a command or message may have.
pub const MAX_HEADERS: usize = 32;
/// The most bytes of a header's name; it has at least one.
pub const MAX_HEADER_NAME_BYTES: usize = 128;
/// The most bytes of a header's value.
pub const MAX_HEADER_VALUE_BYTES: usize = 1024;

/// Headers as a map. Of headers with the same name the last one stays.
pub fn headers_out(headers: &Headers) -> BTreeMap<String, String> {
    headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// Headers from outside, sorted by name.
pub fn headers(given: &BTreeMap<String, String>, field: &str) -> Result<Headers, Violation> {
    if given.len() > MAX_HEADERS {
        let what = format!("has {} entries; at most {MAX_HEADERS} are allowed", given.len());
        return Err(Violation::invalid(field, what));
    }
    let mut headers = Headers::with_capacity(given.len());
    for (name, value) in given {
        check(name, value, field)?;
        headers.push((name.as_str().into(), value.as_str().into()));
    }
    Ok(headers)
}

fn check(name: &str, value: &str, field: &str) -> Result<(), Violation> {
    let what = if !(1..=MAX_HEADER_NAME_BYTES).contains(&name.len()) {
        format!("has a name of {} bytes; a name has 1 to {MAX_HEADER_NAME_BYTES}", name.len())
    } else if value.len() > MAX_HEADER_VALUE_BYTES {
        let bytes = value.len();
        format!(
            "has {bytes} bytes in the value of {name:?}; at most {MAX_HEADER_VALUE_BYTES} are allowed"
        )
    } else {
        return Ok(());
    };
    Err(Violation::invalid(field, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        entries.iter().map(own).collect()
    }

    #[test]
    fn headers_come_back_sorted() {
        let given = map(&[("b", ""), ("a", "é=1"), ("x-y.z", "2")]);
        let read = headers(&given, "headers").unwrap();
        assert_eq!(&*read[0].0, "a");
        assert_eq!(headers_out(&read), given);
    }

    #[test]
    fn names_and_values_are_bounded_in_bytes() {
        let read = |name: &str, value: &str| headers(&map(&[(name, value)]), "headers");
        assert!(read(&"n".repeat(128), &"v".repeat(1024)).is_ok());
        for (name, value) in [
            (String::new(), String::new()),
            ("é".repeat(65), String::new()),
            ("n".to_owned(), "é".repeat(513)),
        ] {
            let violation = read(&name, &value).unwrap_err();
            assert_eq!(violation.field, "headers");
            assert!(violation.description.len() < 400, "{violation}");
        }
    }

    #[test]
    fn there_is_a_bound_on_their_number() {
        let many = |n: usize| (0..n).map(|i| (format!("h{i}"), String::new())).collect();
        assert!(headers(&many(MAX_HEADERS), "headers").is_ok());
        assert!(headers(&many(MAX_HEADERS + 1), "headers").is_err());
    }
}
