//! The man pages under `systemd/man`, made from the command line's own description and from the commented default config. Only tests
//! need it; packages carry the result.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use clap::CommandFactory;

use super::Args;
use crate::config;

/// Every page by its file's name.
fn pages() -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    clap_mangen::generate_to(Args::command(), folder.path()).unwrap();
    let mut pages = read(folder.path());
    pages.insert("faceid.toml.5".to_owned(), config_page(config::commented_default()));
    pages
}

fn read(folder: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(&path).unwrap())).collect()
}

/// The config's page: a section a table, a paragraph a key.
fn config_page(text: &str) -> String {
    let mut out = String::from(
        ".TH faceid.toml 5\n.SH NAME\nfaceid.toml \\- the config of faceid, /etc/faceid/config.toml\n.SH DESCRIPTION\n\
         Every key with its default. \\fBfaceid check\\fR tells what is wrong in a config, all at once; keys that are not known are refused.\n",
    );
    let mut words: Vec<&str> = Vec::new();
    // The first paragraph is the file's own.
    for line in text.lines().skip_while(|line| !line.is_empty()) {
        let example = line.strip_prefix("# ").filter(|line| is_pair(line) || line.starts_with("[["));
        if let Some(table) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            writeln!(out, ".SH [{table}]\n{}", roff(&words.join(" "))).unwrap();
            words.clear();
        } else if is_pair(line) || example.is_some() {
            writeln!(out, ".TP\n\\fB{}\\fR\n{}", roff(example.unwrap_or(line)), roff(&words.join(" "))).unwrap();
            words.clear();
        } else if let Some(comment) = line.strip_prefix("# ") {
            words.push(comment);
        }
    }
    out.push_str(".SH SEE ALSO\n\\fBfaceid\\fR(1), \\fBfaceid-check\\fR(1), \\fBfaceid-door\\fR(1)\n");
    out
}

/// A key with its value.
fn is_pair(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
}

/// Text whose dots, dashes and backslashes are its own.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

#[test]
fn the_man_pages_say_what_the_command_line_and_the_config_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/man");
    let made = pages();
    assert!(made.contains_key("faceid.1") && made.contains_key("faceid-door.1") && made["faceid.toml.5"].contains("state\\-dir"));
    if std::env::var_os("FACEID_WRITE_MAN").is_some() {
        read(&folder).keys().for_each(|name| std::fs::remove_file(folder.join(name)).unwrap());
        made.iter().for_each(|(name, page)| std::fs::write(folder.join(name), page).unwrap());
    }
    let stale = "write them again with\n  FACEID_WRITE_MAN=1 cargo test --release --lib cli::manual\nand look at what changed";
    let kept = read(&folder);
    assert_eq!(kept.keys().collect::<Vec<_>>(), made.keys().collect::<Vec<_>>(), "{stale}");
    for (name, page) in made {
        assert!(kept[&name] == page, "systemd/man/{name} is not what the program says: {stale}");
    }
}
