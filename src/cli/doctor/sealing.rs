//! What a sealed credential is bound to, told by its first bytes: `systemd-creds` writes Base64 of a header that begins with an id of the
//! kind of key (systemd, `src/shared/creds-util.h`). The secret itself is not needed and not read.

use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes of an id.
const ID_BYTES: usize = 16;
/// As much Base64 as holds an id.
const HEAD_CHARS: usize = 24;

const HOST: &str = "bound to this machine's key file: who copies the whole disk can open it";
const TPM: &str = "bound to this machine's TPM";
const BOTH: &str = "bound to this machine's TPM and its key file";
const NOTHING: &str = "bound to nothing (a null key): anybody who has the file can open it";

/// The kinds of `systemd-creds encrypt --with-key=`, and those for a user alone.
const KINDS: [(u128, &str); 9] = [
    (0x5a1c6a86df9d4096b1d5a65e0862f19a, HOST),
    (0x55b9ed1d38594d43a8319d2ebb332ac6, HOST),
    (0x0c7cc07b117645919c4b0bea08bc20fe, TPM),
    (0xfaf7eb9341e3412ca1a436f95a29362f, TPM),
    (0x93a894094874449090caf2fc93cab553, BOTH),
    (0xef4ac13679a9480ea7db68897f9f165d, BOTH),
    (0xaf4950a849134eb1a73846304ff30c05, BOTH),
    (0xadbc4ca3efb64201ba881b6f2e4095ea, BOTH),
    (0x058469daf6f54324800549da0f8ea2fb, NOTHING),
];

/// What the credential `name` in the folder of sealed ones is bound to, or why that cannot be told.
pub(super) fn of(folder: &Path, name: &str) -> &'static str {
    let mut head = Vec::new();
    let file = std::fs::File::open(folder.join(name));
    // Line breaks may stand between.
    match file.and_then(|file| file.take(4 * HEAD_CHARS as u64).read_to_end(&mut head)) {
        Ok(_) => kind(&head),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            "whose sealed form is not here: what it is bound to cannot be told"
        }
        Err(_) => "whose sealed form may not be read by you: what it is bound to cannot be told",
    }
}

fn kind(text: &[u8]) -> &'static str {
    let head: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).take(HEAD_CHARS).collect();
    let id = STANDARD.decode(head).ok().and_then(|bytes| Some(u128::from_be_bytes(*bytes.first_chunk::<ID_BYTES>()?)));
    let known = id.and_then(|id| KINDS.iter().find(|(known, _)| *known == id));
    known.map_or("of a kind that this program does not know", |(_, says)| says)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_credential_is_bound_to_is_read_from_its_head_and_nothing_else_is_believed() {
        for text in [&b""[..], b"WhxqRooth", b"not base64 at all, but long enough", &[0; 64]] {
            assert!(kind(text).contains("does not know"));
        }
        // As `systemd-creds encrypt --with-key=host` and `=tpm2` begin; the rest is another matter.
        for (head, word) in [("Whxqht+dQJax1aZeCGLxmiAAAAABAAAA", "key file"), ("DHzAexF2RZGcSwvqCLwg/iAAAAABAAAA", "TPM")] {
            assert!(kind(head.as_bytes()).contains(word), "{head}");
            let broken: String = head.chars().flat_map(|c| [c, '\n']).collect();
            assert!(kind(broken.as_bytes()).contains(word), "{head}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(of(folder.path(), "gallery.key").contains("cannot be told"));
        let mut null = 0x058469daf6f54324800549da0f8ea2fb_u128.to_be_bytes().to_vec();
        null.extend([7; 200]);
        std::fs::write(folder.path().join("gallery.key"), STANDARD.encode(null)).unwrap();
        assert!(of(folder.path(), "gallery.key").contains("nothing"));
    }
}
