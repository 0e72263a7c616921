//! Which doors are blocked, told whenever it changes: retained on `door/<door>/throttle`, counted, in the log, and with an alarm when a
//! block begins. So nobody has to guess why a door turns people away, and a broker's old word about a door never stands for long.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use crate::access::Block;
use crate::publish::{Alarm, AlarmKind, DoorBlock, Event};
use crate::system::messages;
use crate::types::{DoorId, Moment, Monotonic, Wall};

/// What fails before a block of faces, in the words of the contract and of the figures.
const FACES: &str = "failed-faces";
/// And before one of a reader.
const CREDENTIALS: &str = "failed-credentials";

/// How the doors are, for the figures and for the command line.
#[derive(Default)]
pub struct BlockedDoors(Mutex<BTreeMap<DoorId, Lines>>);

/// One door: its faces, its reader.
type Lines = [Line; 2];

/// One of the two.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Line {
    /// Until when it is blocked.
    pub(super) until: Option<Wall>,
    /// How many blocks were begun since the start.
    pub(super) begun: u64,
}

impl BlockedDoors {
    /// Every door with its lines, each with its word.
    pub(super) fn lines(&self) -> Vec<(DoorId, [(&'static str, Line); 2])> {
        let doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors.iter().map(|(door, [faces, reader])| (door.clone(), [(FACES, *faces), (CREDENTIALS, *reader)])).collect()
    }

    /// The blocks that are in force: where, until when, why.
    pub(super) fn in_force(&self) -> Vec<(DoorId, Wall, String)> {
        let of = |(door, lines): (DoorId, [(&'static str, Line); 2])| {
            lines.into_iter().filter_map(move |(why, line)| Some((door.clone(), line.until?, why.to_owned())))
        };
        self.lines().into_iter().flat_map(of).collect()
    }

    fn note(&self, block: &Block, begun: [bool; 2]) {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = doors.entry(block.door.clone()).or_default();
        for ((line, until), begun) in lines.iter_mut().zip([block.faces, block.credentials]).zip(begun) {
            line.until = until.map(|until| until.wall);
            line.begun += u64::from(begun);
        }
    }
}

/// What was told last of each door.
#[derive(Default)]
pub(super) struct Blocks(HashMap<DoorId, [Option<Monotonic>; 2]>);

impl Blocks {
    /// What is to be told because it has changed since this was last asked.
    pub(super) fn news(&mut self, blocks: Vec<Block>, counts: &BlockedDoors, now: Moment) -> Vec<Event> {
        let mut news = Vec::new();
        for block in blocks {
            let ends = [block.faces, block.credentials].map(|until| until.map(|until| until.monotonic));
            let before = self.0.get(&block.door).copied();
            if before == Some(ends) {
                continue;
            }
            self.0.insert(block.door.clone(), ends);
            let is_begun = |n: usize| ends[n].is_some() && before.is_some_and(|before| before[n] != ends[n]);
            let begun = [0, 1].map(is_begun);
            counts.note(&block, begun);
            let (faces, credentials) = (block.faces.map(|until| until.wall), block.credentials.map(|until| until.wall));
            news.push(Event::DoorBlock(DoorBlock { door: block.door.clone(), faces, credentials, at: now.wall }));
            if block.until().is_some() {
                log::warn!(MESSAGE_ID = messages::DOOR_BLOCKED, door = block.door.as_str(); "{}", sentence(&block));
            } else if before.is_some() {
                log::info!(MESSAGE_ID = messages::DOOR_BLOCKED, door = block.door.as_str(); "the door is not blocked any more");
            }
            if begun.contains(&true) {
                let detail = sentence(&block);
                news.push(Event::Alarm(Alarm {
                    kind: AlarmKind::Throttled,
                    door: Some(block.door),
                    camera: None,
                    detail,
                    at: now.wall,
                }));
            }
        }
        news
    }
}

/// What a block means, for a person to read.
fn sentence(block: &Block) -> String {
    let mut parts = Vec::new();
    if let Some(until) = block.faces {
        parts.push(format!("too many faces failed: until {} only clear matches pass", until.wall.rfc3339()));
    }
    if let Some(until) = block.credentials {
        let until = until.wall.rfc3339();
        parts.push(format!("too many numbers were nobody's: until {until} a number counts beside its owner's clear face alone"));
    }
    format!("the door is blocked: {}; a signed release ends it", parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Moment {
        Moment { monotonic: Monotonic(s * 1_000_000_000), wall: Wall(1_700_000_000_000 + i64::try_from(s * 1000).unwrap()) }
    }

    fn block(faces: Option<u64>, credentials: Option<u64>) -> Block {
        Block { door: DoorId::new("front").unwrap(), faces: faces.map(at), credentials: credentials.map(at) }
    }

    #[test]
    fn a_block_is_told_when_it_begins_and_when_it_ends_and_an_alarm_is_raised_once() {
        let (mut blocks, doors) = (Blocks::default(), BlockedDoors::default());
        let mut told = |block: Block, s: u64| {
            let news: Vec<String> = blocks.news(vec![block], &doors, at(s)).iter().map(Event::topic).collect();
            let begun = doors.lines()[0].1.map(|(_, line)| line.begun);
            (news.join(" "), begun, doors.in_force().into_iter().map(|(_, until, why)| (until, why)).collect::<Vec<_>>())
        };
        let until = |s: u64, why: &str| (at(s).wall, why.to_owned());
        let (state, alarm) = ("door/front/throttle".to_owned(), "door/front/throttle alarm/throttled".to_owned());
        assert_eq!(
            told(block(None, None), 0),
            (state.clone(), [0, 0], vec![]),
            "what the broker kept of the run before is replaced"
        );
        assert_eq!(told(block(None, None), 1), (String::new(), [0, 0], vec![]));
        assert_eq!(told(block(Some(31), None), 1), (alarm.clone(), [1, 0], vec![until(31, FACES)]));
        assert_eq!(told(block(Some(31), None), 2), (String::new(), [1, 0], vec![until(31, FACES)]));
        let both = vec![until(31, FACES), until(62, CREDENTIALS)];
        assert_eq!(told(block(Some(31), Some(62)), 2), (alarm, [1, 1], both), "another alarm");
        assert_eq!(told(block(None, Some(62)), 31), (state.clone(), [1, 1], vec![until(62, CREDENTIALS)]));
        assert_eq!(told(block(None, None), 62), (state.clone(), [1, 1], vec![]));
        // What an earlier run kept is told, and is no news.
        assert!(sentence(&block(Some(31), None)).contains("2023-11-14T22:13:51"));
        let (mut again, restored) = (Blocks::default(), BlockedDoors::default());
        assert_eq!(again.news(vec![block(Some(31), None)], &restored, at(1)).len(), 1);
        assert_eq!(restored.lines()[0].1.map(|(_, line)| line.begun), [0, 0]);
        assert_eq!(restored.in_force().len(), 1);
    }
}
