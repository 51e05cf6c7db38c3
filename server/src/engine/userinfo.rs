//! The user and the password in a URL (RFC 3986, "User Information").

/// Reads `user:password`, where `%XX` is a byte. Empty parts are absent; `None` for an invalid
/// escape.
pub(super) fn parse(text: &str) -> Option<(Option<String>, Option<String>)> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let decode = |text: &str| decoded(text).map(|text| (!text.is_empty()).then_some(text));
    Some((decode(user)?, decode(password)?))
}

/// Decodes the `%XX` in a text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_wrong_ones_refused() {
        let (user, password) = parse("a%40b:p%3A%2F%25ü").unwrap();
        assert_eq!((user.as_deref(), password.as_deref()), (Some("a@b"), Some("p:/%ü")));
        for wrong in ["%", "%4", "%zz", "u:%ff", "%+1"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
