//! When the certificates between this device and its broker end, for `faceid doctor`: of a certificate only its validity is read
//! (RFC 5280, 4.1.2.5); whether it is trusted is rustls's to say.

use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Stream};

use super::connect::{self, Problem};
use super::settings::Settings;
use crate::types::Wall;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The optional version in front of the other fields.
const VERSION: u8 = 0xa0;

/// The first end among the certificates that the broker shows, after a whole handshake.
pub fn of_broker(settings: &Settings, secrets: &std::path::Path) -> Result<Option<Wall>, Problem> {
    let wait = Duration::from_secs(u64::from(settings.connect_timeout_s.max(1)));
    let broker = format!("{}:{}", settings.host, settings.port);
    let lost = |detail: String| Problem::Lost { broker: broker.clone(), detail };
    let config = connect::tls(settings, secrets)?;
    let name = ServerName::try_from(settings.host.clone()).map_err(|error| Problem::Setup(error.to_string()))?;
    let mut session = ClientConnection::new(Arc::new(config), name).map_err(|error| lost(error.to_string()))?;
    let address = (settings.host.as_str(), settings.port).to_socket_addrs().map_err(|error| lost(error.to_string()))?.next();
    let address = address.ok_or_else(|| lost("the name has no address".to_owned()))?;
    let mut socket = TcpStream::connect_timeout(&address, wait).map_err(|error| lost(error.to_string()))?;
    socket
        .set_read_timeout(Some(wait))
        .and_then(|()| socket.set_write_timeout(Some(wait)))
        .map_err(|error| lost(error.to_string()))?;
    let stream = Stream::new(&mut session, &mut socket);
    while stream.conn.is_handshaking() {
        match stream.conn.complete_io(stream.sock) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(lost(error.to_string())),
        }
    }
    Ok(session.peer_certificates().unwrap_or_default().iter().filter_map(|der| end_of(der)).min())
}

/// The end of this device's own certificate; `None` when it has none.
pub fn of_device(settings: &Settings) -> Result<Option<Wall>, Problem> {
    let Some(file) = &settings.tls.client_certificate_file else { return Ok(None) };
    Ok(connect::certificates(file)?.iter().filter_map(|der| end_of(der)).min())
}

/// `notAfter` of a certificate in DER; `None` for what is none.
pub fn end_of(der: &[u8]) -> Option<Wall> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (mut fields, _) = expect(certificate, SEQUENCE)?;
    if let Some((VERSION, _, rest)) = element(fields) {
        fields = rest;
    }
    // Serial number, algorithm and issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (validity, _) = expect(fields, SEQUENCE)?;
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

fn time(tag: u8, text: &str) -> Option<Wall> {
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    let (year, rest) = match tag {
        // Two digits: 1950 to 2049.
        UTC_TIME if digits.len() == 12 => {
            let year: i16 = digits[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        GENERALIZED_TIME if digits.len() == 14 => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| rest[at..at + 2].parse::<i8>().ok();
    let civil = jiff::civil::DateTime::new(year, part(0)?, part(2)?, part(4)?, part(6)?, part(8)?, 0).ok()?;
    let stamp = jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()?;
    Some(Wall(stamp.as_millisecond()))
}

fn expect(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    element(bytes).filter(|(tag, ..)| *tag == wanted).map(|(_, content, rest)| (content, rest))
}

/// The first element of DER: its tag, its content, and what comes after it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, bytes) = bytes.split_first()?;
    let (&first, mut bytes) = bytes.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let count = usize::from(first & 0x7f);
        let (head, rest) = bytes.split_at_checked(count).filter(|_| (1..=4).contains(&count))?;
        length = head.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        bytes = rest;
    }
    let (content, rest) = bytes.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate's skeleton with this validity's end.
    fn certificate(tag: u8, end: &str) -> Vec<u8> {
        fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
            let mut all = vec![tag, 0x82, (content.len() >> 8) as u8, content.len() as u8];
            all.extend_from_slice(content);
            all
        }
        let validity = [wrap(UTC_TIME, b"200101000000Z"), wrap(tag, end.as_bytes())].concat();
        let fields =
            [wrap(VERSION, &[2, 1, 2]), wrap(2, &[7]), wrap(SEQUENCE, &[]), wrap(SEQUENCE, &[]), wrap(SEQUENCE, &validity)];
        wrap(SEQUENCE, &wrap(SEQUENCE, &fields.concat()))
    }

    #[test]
    fn what_is_no_certificate_has_no_end_and_no_cut_of_one_panics() {
        let whole = certificate(GENERALIZED_TIME, "20991231235959Z");
        for length in 0..whole.len() {
            end_of(&whole[..length]);
            let mut changed = whole.clone();
            changed[length] ^= 0x84;
            end_of(&changed);
        }
        for (tag, text) in
            [(UTC_TIME, "20991231235959Z"), (UTC_TIME, "991332000000Z"), (GENERALIZED_TIME, "2099123123595é"), (4, "991231235959Z")]
        {
            assert_eq!(end_of(&certificate(tag, text)), None, "{text}");
        }
    }

    #[test]
    fn the_end_is_read_from_both_forms_of_time() {
        assert_eq!(end_of(&certificate(UTC_TIME, "491231235959Z")).unwrap().rfc3339(), "2049-12-31T23:59:59.000Z");
        assert_eq!(end_of(&certificate(UTC_TIME, "500101000000Z")).unwrap().rfc3339(), "1950-01-01T00:00:00.000Z");
        assert_eq!(end_of(&certificate(GENERALIZED_TIME, "20500101000000Z")).unwrap().rfc3339(), "2050-01-01T00:00:00.000Z");
    }
}
