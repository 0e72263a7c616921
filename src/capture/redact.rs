//! Keeps passwords out of texts that others wrote: GStreamer's errors may hold the address or the launch line.

use zeroize::Zeroizing;

/// What stands in a secret's place.
const MASK: &str = "***";

/// An address without user, password, query and fragment.
pub fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return mask_users(url) };
    // The last `@` counts: a password may hold a `/` or an `@` that nobody encoded.
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let place = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{place}")
}

/// Replaces `user:password@` in every address that stands in the text.
fn mask_users(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>')).unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        match url.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str(MASK);
                out.push('@');
                out.push_str(host);
            }
            None => out.push_str(url),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Knows one camera's secrets and takes them out of texts.
#[derive(Default)]
pub struct Redactor(Vec<Zeroizing<String>>);

impl Redactor {
    /// Adds a secret, as it is and as it stands in an address (percent-encoded).
    pub fn add(&mut self, secret: &str) {
        if secret.is_empty() {
            return;
        }
        let mut encoded = String::with_capacity(3 * secret.len());
        for byte in secret.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
                _ => encoded.push_str(&format!("%{byte:02X}")),
            }
        }
        self.0.push(Zeroizing::new(secret.to_owned()));
        self.0.push(Zeroizing::new(encoded));
        // A secret that holds another is taken out first, or its rest would stay.
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// Adds what a launch line holds: values of properties whose name speaks of a password, and the passwords of its addresses.
    pub fn add_launch_line(&mut self, line: &str) {
        for word in line.split_whitespace() {
            let Some((key, value)) = word.split_once('=') else { continue };
            let key = key.to_ascii_lowercase();
            if ["pw", "pass", "token", "secret", "key"].iter().any(|part| key.contains(part)) {
                self.add(value.trim_matches(['"', '\'']));
            }
            if let Some((user, _)) = value.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')) {
                self.add(user.split_once(':').map_or(user, |(_, password)| password));
            }
        }
    }

    /// The text without secrets and without the users of addresses.
    pub fn clean(&self, text: &str) -> String {
        let mut text = mask_users(text);
        for secret in &self.0 {
            text = text.replace(secret.as_str(), MASK);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_wherever_they_stand() {
        let mut redactor = Redactor::default();
        redactor.add("hun/t@r 2");
        let text = "failed: rtsp://admin:hun%2Ft%40r%202@cam/1 (password \"hun/t@r 2\") and rtsp://a:b@c/d";
        assert_eq!(redactor.clean(text), "failed: rtsp://***@cam/1 (password \"***\") and rtsp://***@c/d");
    }

    #[test]
    fn a_launch_lines_passwords_are_known() {
        let mut redactor = Redactor::default();
        redactor.add_launch_line("rtspsrc location=rtsp://u:inner@h/ user-pw=\"outer\" ! appsink name=faceid");
        assert_eq!(redactor.clean("inner outer faceid"), "*** *** faceid");
    }

    #[test]
    fn an_address_is_shown_without_user_and_query() {
        assert_eq!(without_user("rtsp://u:p/x@cam:554/a?token=1#f"), "rtsp://cam:554/a");
        assert_eq!(without_user("rtsp://cam/a"), "rtsp://cam/a");
        assert_eq!(Redactor::default().clean("plain words"), "plain words");
    }
}
