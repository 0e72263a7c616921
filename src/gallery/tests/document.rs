//! FORMAT.md: its numbers are those of the code.

use super::*;

const DOCUMENT: &str = include_str!("../FORMAT.md");

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches(['|', ' ']).split(" | ").collect()
}

/// The document's words with one space between them, so that no line's end comes in between.
fn flowing() -> String {
    DOCUMENT.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_format_document_tells_the_constants() {
    let constants = [
        ("FIELDS_BYTES", format::FIELDS_BYTES),
        ("SALT_AT", seal::SALT_AT),
        ("KEYS_AT", seal::KEYS_AT),
        ("COMMITMENT_AT", seal::COMMITMENT_AT),
        ("CHECKSUM_AT", seal::CHECKSUM_AT),
        ("HEADER_TAG_AT", seal::HEADER_TAG_AT),
        ("HEADER_BYTES", seal::HEADER_BYTES),
        ("KEY_BYTES", seal::KEY_BYTES),
        ("LENGTH_BYTES", seal::LENGTH_BYTES),
        ("TAG_BYTES", seal::TAG_BYTES),
        ("RECORD_SALT_BYTES", seal::RECORD_SALT_BYTES),
        ("MAX_DIMENSION", MAX_DIMENSION),
        ("MAX_PEOPLE", MAX_PEOPLE),
        ("MAX_TEMPLATES", MAX_TEMPLATES),
        ("MAX_TEMPLATES_PER_PERSON", format::MAX_TEMPLATES_PER_PERSON),
        ("MAX_NAME_BYTES", format::MAX_NAME_BYTES),
        ("MAX_GROUPS", format::MAX_GROUPS),
        ("RECORD_TARGET_BYTES", format::RECORD_TARGET_BYTES),
        ("MAX_RECORD_BYTES", format::MAX_RECORD_BYTES),
        ("JOURNAL_HEADER_BYTES", journal::JOURNAL_HEADER_BYTES),
        ("SESSION_BYTES", journal::SESSION_BYTES),
        ("CHANGE_HEADER_BYTES", journal::CHANGE_HEADER_BYTES),
        ("MAX_CHANGE_BYTES", journal::MAX_CHANGE_BYTES),
        ("SLOT_STRIDE", witness::SLOT_STRIDE),
        ("SLOT_BYTES", witness::SLOT_BYTES),
        ("GRAPH_HEADER_BYTES", seal::graph::GRAPH_HEADER_BYTES),
        ("PART_BYTES", seal::graph::PART_BYTES),
        ("WORK", usize::from(seal::age::WORK)),
        ("MAX_SIGNATURE_BYTES", backup::MAX_SIGNATURE_BYTES),
    ];
    let bounds = DOCUMENT.split("## Bounds").nth(1).unwrap().split("##").next().unwrap();
    let told: Vec<_> = bounds.lines().filter(|l| l.starts_with("| `")).map(|l| cells(l).join(" ")).collect();
    let expected: Vec<_> = constants.iter().map(|(name, value)| format!("`{name}` {value}")).collect();
    assert_eq!(told, expected);
    // The tables with offsets have no gap and end where the thing does.
    let ends = [
        ("## Header", seal::HEADER_BYTES),
        ("## Journal", journal::JOURNAL_HEADER_BYTES),
        ("### A copy's header", seal::graph::GRAPH_HEADER_BYTES),
        ("### A slot", witness::SLOT_BYTES),
        ("## Backup", backup::BACKUP_MAGIC.len() + 8 + format::FIELDS_BYTES),
        ("## Version 1", format::FIELDS_BYTES_1 + 4 * seal::BLOCK_BYTES),
    ];
    for (heading, end) in ends {
        let section = DOCUMENT.split(&format!("\n{heading}\n")).nth(1).unwrap();
        let table = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
        let mut at = 0;
        for line in table.filter(|line| line.as_bytes()[2].is_ascii_digit()) {
            let numbers: Vec<usize> = cells(line)[..2].iter().map(|n| n.parse().unwrap()).collect();
            assert_eq!(numbers[0], at, "{heading}: {line}");
            at += numbers[1];
        }
        assert_eq!(at, end, "{heading}");
    }
    // Tables without offsets: what is fixed in them adds up.
    let fixed = [
        ("A session's start; each opening for writing begins one with its first change:", journal::SESSION_BYTES),
        ("A change, sealed under", journal::CHANGE_HEADER_BYTES + seal::TAG_BYTES),
    ];
    for (before, bytes) in fixed {
        let table = DOCUMENT.split(before).nth(1).unwrap().split("\n\n").nth(1).unwrap();
        let numbers = table.lines().filter_map(|line| cells(line)[0].parse::<usize>().ok());
        assert_eq!(numbers.sum::<usize>(), bytes, "{before}");
    }
    let magics = [format::MAGIC, journal::JOURNAL_MAGIC, witness::WITNESS_MAGIC, backup::BACKUP_MAGIC, seal::graph::GRAPH_MAGIC];
    for magic in magics {
        let text = std::str::from_utf8(&magic).unwrap().trim_end_matches(['\n', '\0']);
        assert!(DOCUMENT.contains(text), "{text}");
    }
}

/// Numbers that stand in sentences.
#[test]
fn the_format_documents_sentences_tell_the_constants() {
    let slot = |n: usize| {
        let at = n * witness::SLOT_STRIDE;
        format!("{},{:03}", at / 1000, at % 1000)
    };
    let sentences = [
        format!("({} bytes, the key-encryption key)", seal::KEY_BYTES),
        format!("SHA-256 of bytes 0 to {}", seal::CHECKSUM_AT),
        format!("`faceid-gallery/2 header`, bytes 0 to {})", seal::HEADER_TAG_AT),
        format!("with bytes 0 to {} as associated data", seal::KEYS_AT),
        format!(
            "three lowest bytes, a counter from 0 ({} bytes, big-endian) and the last flag",
            seal::NONCE_BYTES - seal::PREFIX_BYTES - 1
        ),
        format!(
            "flags: {} has a name, {} has a day of consent, {} expires",
            format::HAS_NAME,
            format::HAS_CONSENT,
            format::HAS_EXPIRY
        ),
        format!("when flagged: 1 to {} bytes of UTF-8", format::MAX_NAME_BYTES),
        format!("the header's SHA-256, its first {} bytes", seal::TAG_BYTES),
        format!("salt); its first {} bytes are its tag", seal::TAG_BYTES),
        format!("two slots, at {} and at {},", slot(1), slot(2)),
        format!("HKDF-Expand(bytes 0 to {})", witness::SLOT_BYTES - seal::BLOCK_BYTES),
        format!("bytes 0 to {} of a gallery's header", format::FIELDS_BYTES),
    ];
    let document = flowing();
    for sentence in sentences {
        assert!(document.contains(&sentence), "`{sentence}` is not in FORMAT.md");
    }
    assert_eq!(seal::PREFIX_BYTES, "abc".len(), "three lowest bytes");
    // What a record is bound to is told part by part, each with its bytes.
    let bindings = [
        ("Associated data: SHA-256 of the whole header", seal::RECORD_BINDING_BYTES),
        ("Associated data: SHA-256 of the header (32), number in the session", seal::CHANGE_BINDING_BYTES),
    ];
    for (begins, bytes) in bindings {
        let at = document.find(begins).unwrap();
        let sentence = document[at..].split(". ").next().unwrap();
        let leading = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<usize>().unwrap();
        assert_eq!(sentence.split('(').skip(1).map(leading).sum::<usize>(), bytes, "{sentence}");
    }
}

/// A person's table, row by row, is what a person takes.
#[test]
fn the_format_document_tells_every_byte_of_a_person() {
    let full = Person {
        name: Some("Ann".to_owned()),
        groups: vec![GroupId::new("staff").unwrap()],
        consented_at: Some(Wall(1)),
        expires_at: Some(Wall(2)),
        ..person("ann")
    };
    let table = DOCUMENT.split("## A person\n").nth(1).unwrap().split("\n\nThis version").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit());
    let sizes = rows.map(|line| cells(line)[0].split([' ', '+']).next().unwrap().parse::<usize>().unwrap());
    let texts = ["ann", "Ann", "staff"].map(str::len).iter().sum::<usize>();
    assert_eq!(sizes.sum::<usize>() + texts, format::entry_bytes(&full, 1, 1));
}
