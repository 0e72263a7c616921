//! The lists that say which photos to compare: LFW's pairs, and photos by person for searches. Text in, values out.

use thiserror::Error;

/// Why a list was refused. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// Neither of the two forms.
    #[error("line {line}: has {fields} fields: write `NAME I J` for one person or `NAME I NAME J` for two")]
    NoPair {
        /// Where.
        line: usize,
        /// How many words it has.
        fields: usize,
    },
    /// A photo's number that is none.
    #[error("line {line}: `{word}` is no photo's number from 1 to 9999")]
    NoNumber {
        /// Where.
        line: usize,
        /// What is there.
        word: String,
    },
    /// A name that could leave the folder of photos.
    #[error("line {line}: `{word}` is no name of a person's folder")]
    NoName {
        /// Where.
        line: usize,
        /// What is there.
        word: String,
    },
    /// Not a photo below a person's folder.
    #[error("line {line}: `{word}` is no photo of a person: write PERSON/PHOTO")]
    NoPhoto {
        /// Where.
        line: usize,
        /// What is there.
        word: String,
    },
    /// Not a person with a clip.
    #[error("line {line}: `{word}` is no visit: write PERSON,CLIP, the clip below the folder of clips")]
    NoClip {
        /// Where.
        line: usize,
        /// What is there.
        word: String,
    },
    /// Nothing to do.
    #[error("line 1: the list is empty")]
    Empty,
}

/// A photo of a person, and where it lies below the folder of photos.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Photo {
    /// The person's folder.
    pub person: String,
    /// With `/` between folder and file.
    pub path: String,
}

/// Two photos to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// One.
    pub first: Photo,
    /// The other.
    pub second: Photo,
    /// Which of [`FOLDS`] parts of the cross-validation it belongs to.
    pub fold: usize,
}

impl Pair {
    /// Whether both are of one person.
    pub fn is_mated(&self) -> bool {
        self.first.person == self.second.person
    }
}

/// The parts of LFW's cross-validation.
pub const FOLDS: usize = 10;
/// The most characters of a wrong word that are shown.
const SHOWN: usize = 40;

/// Reads LFW's pairs: `NAME I J` or `NAME I NAME J` a line, fields apart by spaces or tabs, the photo being `NAME/NAME_000I.jpg`. A
/// first line of one or two numbers (`10 300`) is a header and says nothing here. In LFW's order each fold is a run of mated pairs and
/// one of non-mated pairs; where the list has ten such, they are the folds, otherwise each kind is cut into tenths.
pub fn parse_pairs(text: &str) -> Result<Vec<Pair>, ProtocolError> {
    let mut pairs = Vec::new();
    for (index, words) in lines(text) {
        let line = index + 1;
        let is_header = index == 0 && words.len() <= 2 && words.iter().all(|word| word.parse::<u32>().is_ok());
        if is_header {
            continue;
        }
        let (first, second) = match words[..] {
            [name, i, j] => (numbered(line, name, i)?, numbered(line, name, j)?),
            [name, i, other, j] => (numbered(line, name, i)?, numbered(line, other, j)?),
            _ => return Err(ProtocolError::NoPair { line, fields: words.len() }),
        };
        pairs.push(Pair { first, second, fold: 0 });
    }
    if pairs.is_empty() {
        return Err(ProtocolError::Empty);
    }
    number_folds(&mut pairs);
    Ok(pairs)
}

/// Reads photos, `PERSON/PHOTO` a line.
pub fn parse_photos(text: &str) -> Result<Vec<Photo>, ProtocolError> {
    let mut photos = Vec::new();
    for (index, words) in lines(text) {
        let line = index + 1;
        let [word] = words[..] else {
            return Err(ProtocolError::NoPhoto { line, word: shown(&words.join(" ")) });
        };
        match word.split_once('/') {
            Some((person, file)) if is_name(person) && is_name(file) => {
                photos.push(Photo { person: person.to_owned(), path: word.to_owned() });
            }
            _ => return Err(ProtocolError::NoPhoto { line, word: shown(word) }),
        }
    }
    if photos.is_empty() { Err(ProtocolError::Empty) } else { Ok(photos) }
}

/// Lines that say something, with their words.
fn lines(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).enumerate().filter(|(_, words)| !words.is_empty())
}

fn numbered(line: usize, person: &str, number: &str) -> Result<Photo, ProtocolError> {
    if !is_name(person) {
        return Err(ProtocolError::NoName { line, word: shown(person) });
    }
    match number.parse::<u32>() {
        Ok(i @ 1..=9999) => Ok(Photo { person: person.to_owned(), path: format!("{person}/{person}_{i:04}.jpg") }),
        _ => Err(ProtocolError::NoNumber { line, word: shown(number) }),
    }
}

/// One part of a path that stays where it is.
fn is_name(word: &str) -> bool {
    !word.is_empty() && !word.starts_with('.') && !word.contains(['/', '\\']) && !word.chars().any(char::is_control)
}

/// What of a wrong word may go to a terminal.
pub(crate) fn shown(word: &str) -> String {
    word.chars().take(SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn number_folds(pairs: &mut [Pair]) {
    let mut fold = 0;
    let mut was_mated = true;
    let runs: Vec<usize> = pairs
        .iter()
        .map(|pair| {
            fold += usize::from(pair.is_mated() && !was_mated);
            was_mated = pair.is_mated();
            fold
        })
        .collect();
    let starts_mated = pairs.first().is_some_and(Pair::is_mated);
    if fold + 1 == FOLDS && starts_mated && !was_mated {
        pairs.iter_mut().zip(runs).for_each(|(pair, run)| pair.fold = run);
        return;
    }
    for mated in [true, false] {
        let count = pairs.iter().filter(|pair| pair.is_mated() == mated).count();
        for (index, pair) in pairs.iter_mut().filter(|pair| pair.is_mated() == mated).enumerate() {
            pair.fold = index * FOLDS / count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pair_is_refused_with_its_line() {
        for (text, line) in [
            ("", "line 1"),
            ("10 300\n", "line 1"),
            ("A 1 2\n\nA 1\n", "line 3"),
            ("A 1 2\nA 1 B 2 3\n", "line 2"),
            ("A 1 x\n", "`x`"),
            ("A 0 1\n", "`0`"),
            ("A 10000 1\n", "`10000`"),
            ("../../etc 1 2\n", "no name"),
            ("A 1 ..\\b 2\n", "no name"),
            ("A 1 2\n10 300\n", "line 2"),
            ("\u{1b}[2J 1 2\n", "?[2J"),
            ("{\"json\": true}\n", "line 1"),
        ] {
            let said = parse_pairs(text).unwrap_err().to_string();
            assert!(said.contains(line) && !said.contains('\u{1b}'), "{text:?}: {said}");
        }
    }

    #[test]
    fn both_forms_are_read_with_and_without_a_header() {
        for text in [
            "Ann_A\t1\t12\nAnn_A\t1\tBob\t2\n",
            "\u{feff}10\t300\r\nAnn_A 1 12\r\nAnn_A 1 Bob 2\r\n",
            "300\nAnn_A 1 12\nAnn_A 1 Bob 2",
        ] {
            let pairs = parse_pairs(text).unwrap();
            assert_eq!(pairs.len(), 2);
            assert_eq!((pairs[0].is_mated(), pairs[0].second.path.as_str()), (true, "Ann_A/Ann_A_0012.jpg"));
            assert_eq!((pairs[1].is_mated(), pairs[1].second.path.as_str()), (false, "Bob/Bob_0002.jpg"));
        }
    }

    #[test]
    fn folds_are_the_lists_own_runs_or_tenths_of_each_kind() {
        let run = "A 1 2\nA 1 3\nA 1 B 1\n";
        let folds = |text: &str| parse_pairs(text).unwrap().iter().map(|pair| pair.fold).collect::<Vec<_>>();
        let own = folds(&run.repeat(10));
        assert_eq!((own[..6].to_vec(), own.last()), (vec![0, 0, 0, 1, 1, 1], Some(&9)));
        let tenths = folds(&format!("{}{}", "A 1 2\n".repeat(20), "A 1 B 2\n".repeat(10)));
        assert_eq!((tenths[..4].to_vec(), tenths[20..23].to_vec()), (vec![0, 0, 1, 1], vec![0, 1, 2]));
    }

    #[test]
    fn photos_outside_the_folder_are_refused() {
        for text in ["/etc/passwd", "../a.jpg", "a/../../b.jpg", "a.jpg", "a/b/c.jpg", "a/", "a/b.jpg c", "\n"] {
            assert!(parse_photos(text).is_err(), "{text}");
        }
        assert_eq!(parse_photos("A/A_0001.jpg\nB/x.png\n").unwrap()[1], Photo { person: "B".into(), path: "B/x.png".into() });
    }
}
