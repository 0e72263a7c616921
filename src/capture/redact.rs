//! Keeps passwords out of texts: addresses of cameras, which may carry one anywhere, and what others wrote, for GStreamer's errors may hold
//! the address or the launch line.

use std::net::IpAddr;

use zeroize::Zeroizing;

/// What stands in a secret's place.
const MASK: &str = "***";
/// Words in the name of a value that is nobody's to read.
const SECRET_WORDS: [&str; 12] =
    ["passw", "passphrase", "pwd", "psw", "user", "usr", "login", "token", "secret", "auth", "credential", "apikey"];
/// Names that are such a word as a whole, and would be too short to look for inside others.
const SECRET_NAMES: [&str; 6] = ["pass", "pw", "key", "pin", "sig", "sid"];
/// A value that is shorter is no secret worth the name, and would be found everywhere.
const LEAST_SECRET: usize = 3;
/// What stands for the password of `password-secret` in an address.
pub const PLACEHOLDER: &str = "{password}";

/// Where an address leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place<'a> {
    /// `rtsp`, for example.
    pub scheme: &'a str,
    /// Name or number, without brackets.
    pub host: &'a str,
    /// Where the address names one.
    pub port: Option<u16>,
}

impl<'a> Place<'a> {
    /// Of an address; a user and password are passed over.
    pub fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        (!host.is_empty()).then(|| Self { scheme, host, port: port.and_then(|port| port.parse().ok()) })
    }
}

/// Whether a host is this machine itself, by its name or number alone.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An address without user, password, query and fragment, and without its path where that carries a password.
pub fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return mask_users(url) };
    let Some((_, place)) = split_user(rest) else { return format!("{scheme}://{MASK}") };
    let place = place.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{}", without_secrets(place))
}

/// User and place of what stands behind an address's scheme; nothing where a password that is not encoded keeps them from being told apart.
/// The last `@` counts: a password may hold a `/` or an `@` that nobody encoded.
fn split_user(rest: &str) -> Option<(Option<&str>, &str)> {
    match rest.rsplit_once('@') {
        Some((user, _)) if carries_secret(user) => None,
        Some((user, place)) => Some((Some(user), place)),
        None => Some((None, rest)),
    }
}

/// The host alone where anything behind it is a secret.
fn without_secrets(place: &str) -> String {
    if !carries_secret(place) {
        return place.to_owned();
    }
    let host = place.split(['/', '?', '#', '=', ';']).next().unwrap_or_default();
    format!("{host}/{MASK}")
}

/// Whether an address carries a password behind its host (`…/user=admin&password=…`), and not only the place of one.
pub fn carries_password(url: &str) -> bool {
    secrets_of(url).iter().any(|(name, value)| !is_user(name) && !value.starts_with(PLACEHOLDER))
}

fn is_user(name: &str) -> bool {
    ["user", "usr", "login"].iter().any(|word| name.contains(word)) && !name.contains("pass") && !name.contains("pw")
}

fn carries_secret(rest: &str) -> bool {
    !secrets_of(rest).is_empty()
}

/// The text as a server might read it: percent-encoding undone, twice encoded too.
fn decoded(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..3 {
        let once = decode_once(&text);
        if once == text {
            break;
        }
        text = once;
    }
    text
}

fn decode_once(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_secret_name(name: &str) -> bool {
    SECRET_WORDS.iter().any(|word| name.contains(word)) || SECRET_NAMES.contains(&name)
}

/// The secret values of an address with their names in small letters, wherever behind the scheme they stand: in the path, the query, the
/// fragment or among matrix parameters, whatever separates them.
fn secrets_of(url: &str) -> Vec<(String, String)> {
    let text = decoded(url);
    let mut found = Vec::new();
    for (at, _) in text.match_indices('=') {
        // A name is what stands before, back to a separator. `_` is one too: some recorders write `/user=admin_password=…`.
        let before = &text[..at];
        let starts = [['=', '}', '/', '?', '#', '&', ';', ',', '!', ':', ' '].as_slice(), ['_', '-', '.'].as_slice()];
        let is_named = starts.iter().enumerate().find_map(|(n, _)| {
            let separators: Vec<char> = starts[..=n].concat();
            let name = before.rsplit(&separators[..]).next().unwrap_or_default().trim().to_ascii_lowercase();
            is_secret_name(&name).then_some(name)
        });
        let Some(name) = is_named else { continue };
        let value = text[at + 1..].split(['&', ';', ' ', '"', '\'', '<', '>']).next().unwrap_or_default();
        if !value.is_empty() {
            found.push((name, value.to_owned()));
        }
    }
    found
}

/// Replaces `user:password@` in every address that stands in the text, and all behind the host of one that carries a password there.
fn mask_users(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>')).unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        match split_user(url) {
            None => out.push_str(MASK),
            Some((user, place)) => {
                if user.is_some() {
                    out.push_str(MASK);
                    out.push('@');
                }
                out.push_str(&without_secrets(place));
            }
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
        self.0.push(Zeroizing::new(secret.to_owned()));
        self.0.push(Zeroizing::new(percent_encoded(secret)));
        // A secret that holds another is taken out first, or its rest would stay.
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// Adds the secrets that an address carries behind its host, as they stand there and as a server reads them.
    pub fn add_address(&mut self, url: &str) {
        let mut values: Vec<String> =
            secrets_of(url).into_iter().filter(|(name, _)| !is_user(name)).map(|(_, value)| value).collect();
        // And where a separator of another kind ends them.
        values.extend(values.clone().iter().filter_map(|value| value.split(['/', '?', '#', '_', ',']).next().map(str::to_owned)));
        for value in values.iter().filter(|value| value.len() >= LEAST_SECRET && !value.starts_with(PLACEHOLDER)) {
            self.add(value);
        }
    }

    /// Adds what a launch line holds: values of properties whose name speaks of a password, and the passwords of its addresses.
    pub fn add_launch_line(&mut self, line: &str) {
        for (secret, _) in launch_line_secrets(line) {
            self.add(&secret);
        }
        line.split_whitespace().filter_map(|word| word.split_once('=')).for_each(|(_, value)| self.add_address(value));
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

/// What a launch line holds in the clear; whether it is a password, and not the name of a key that is none.
fn launch_line_secrets(line: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for word in line.split_whitespace() {
        let Some((key, value)) = word.split_once('=') else { continue };
        let key = key.to_ascii_lowercase();
        if ["pw", "pass", "token", "secret", "key"].iter().any(|part| key.contains(part)) {
            found.push((value.trim_matches(['"', '\'']).to_owned(), is_secret_name(&key) || key.ends_with("-pw")));
        }
        if let Some((user, _)) = value.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')) {
            found.push((user.split_once(':').map_or(user, |(_, password)| password).to_owned(), true));
        }
    }
    found
}

/// Whether a launch line holds a password.
pub fn launch_line_carries_password(line: &str) -> bool {
    let addresses = line.split_whitespace().filter_map(|word| word.split_once('=')).any(|(_, value)| carries_password(value));
    addresses || launch_line_secrets(line).iter().any(|(secret, is_password)| *is_password && !secret.is_empty())
}

/// As it stands in an address.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(3 * text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses that carry `hunter2` behind their host, as cameras want it.
    const CARRYING: [&str; 18] = [
        "rtsp://cam:18900/user=admin&password=hunter2&channel=1&stream=0.sdp?real_stream",
        "rtsp://cam:18900/user=admin_password=hunter2_channel=1_stream=0.sdp",
        "rtsp://cam:18900/live?usr=admin&pwd=hunter2",
        "rtsp://cam:18900/live?PASSWD=hunter2",
        "rtsp://cam:18900/live?pass=hunter2",
        "rtsp://cam:18900/live?x=1&pw=hunter2",
        "rtsp://cam:18900/live;token=hunter2;a=b",
        "rtsp://cam:18900/a;Key=hunter2/b",
        "rtsp://cam:18900/live#api_key=hunter2",
        "rtsp://cam:18900/live#auth_token=hunter2",
        "rtsp://cam:18900/%70assword=hunter2",
        "rtsp://cam:18900/PASS%57ORD%3Dhunter2",
        "rtsp://cam:18900/%2570assword%253Dhunter2",
        "rtsp://cam:18900/loginpas=1&loginuse=admin&loginpassword=hunter2",
        "rtsp://cam:18900/?secret=hunter2",
        "rtsp://cam:18900/cgi?a=b,password=hunter2",
        "rtsp://u:p@cam:18900/stream?password=hunter2",
        "rtsps://cam:18900/password=hunter2",
    ];

    #[test]
    fn a_password_behind_the_host_is_shown_nowhere_and_is_known_to_be_there() {
        for url in CARRYING {
            assert!(carries_password(url), "{url}");
            let shown = without_user(url);
            assert!(shown.contains("://cam:18900/") && !shown.contains("hunter2"), "{url}: {shown}");
            let mut redactor = Redactor::default();
            redactor.add_address(url);
            let path = url.splitn(4, '/').nth(3).unwrap();
            for text in
                [format!("could not open {url} (404)"), format!("404 at \"{url}\""), format!("path {path}"), "hunter2".to_owned()]
            {
                let cleaned = redactor.clean(&text);
                assert!(!cleaned.contains("hunter2"), "{url}: {cleaned}");
            }
            assert!(!Redactor::default().clean(&format!("failed: {url}")).contains("hunter2"), "{url}");
        }
        // One that nobody encoded.
        for url in
            ["rtsp://cam/live?password=hun@ter2", "rtsp://u:p@cam/user=a&password=hun@ter2", "rtsp://cam/password=hun/ter2?x"]
        {
            let shown = [without_user(url), Redactor::default().clean(url)].concat();
            assert!(!shown.contains("hun") && !shown.contains("ter2"), "{url}: {shown}");
        }
        let mut redactor = Redactor::default();
        redactor.add_launch_line("rtspsrc location=rtsp://h/user=a&password=hunter2 ! appsink name=faceid");
        assert_eq!(redactor.clean("hunter2"), "***");
    }

    #[test]
    fn what_carries_no_password_is_shown_as_it_is() {
        for url in [
            "rtsp://cam:554/Streaming/Channels/101",
            "rtsp://[fe80::1]:554/h264",
            "rtsp://cam/axis-media/media.amp",
            "rtsp://cam/keyframe=1",
        ] {
            assert!(!carries_password(url) && without_user(url) == url, "{url}");
        }
        // A user's name is no password, and the place of one neither; neither is shown.
        for url in ["rtsp://cam/user=admin&password={password}", "rtsp://cam/user=admin_password={password}_channel=1"] {
            assert!(!carries_password(url), "{url}");
            assert_eq!(without_user(url), "rtsp://cam/***");
        }
        assert!(!carries_password("rtsp://cam/live?user=admin"));
        for text in ["", "://", "a://", "rtsp://", "=", "%", "%zz=", "rtsp://@=", "://é=%ff%fe"] {
            let _ = (without_user(text), carries_password(text), Place::of(text), Redactor::default().clean(text));
        }
    }

    #[test]
    fn an_addresss_place_is_read() {
        let place = |url| Place::of(url).map(|place| (place.host, place.port));
        assert_eq!(place("rtsp://u:p@cam:554/a"), Some(("cam", Some(554))));
        assert_eq!(place("rtsp://[::1]:8/"), Some(("::1", Some(8))));
        assert_eq!(place("rtsp://cam"), Some(("cam", None)));
        assert_eq!(place("cam"), None);
    }

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

    #[test]
    fn this_machine_is_known_by_its_loopback_names_alone() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.8.8", "::1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["0.0.0.0", "192.0.2.7", "localhost.example", "127.0.0.1.example", "::", "cam", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
