//! A hierarchical navigable small world (Malkov and Yashunin, 2016) over sketches: which are nearest to a probe's, without looking at
//! each. It cannot be changed once built.

use std::cell::{Cell, OnceCell};

use instant_distance::{Builder, Hnsw, Point, Search};
use serde::{Deserialize, Serialize};

use super::sketch::Sketch;
use crate::system::Stop;

/// Levels are drawn from it, so that one gallery makes one graph (but for the order of threads).
const SEED: u64 = 20_160_330;
/// Candidates that a search names.
const CANDIDATES: usize = 256;
/// Candidates among which the neighbours of a new point are chosen.
const CONSTRUCTION: usize = 100;
/// Distances between two looks at the stop signal.
const LOOK_EVERY: u32 = 4096;
/// Neighbours of a node on the lowest layer; above it half as many.
const NEIGHBOURS: usize = 64;
/// A neighbour that is none.
const NONE: u32 = u32::MAX;

thread_local! {
    /// Set on the threads of a build alone.
    static STOP: OnceCell<Stop> = const { OnceCell::new() };
    static LOOKED: Cell<u32> = const { Cell::new(0) };
    static HALTED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread builds a graph that nobody wants any more.
fn is_halted() -> bool {
    STOP.with(|stop| {
        let Some(stop) = stop.get() else { return false };
        let looked = LOOKED.get().wrapping_add(1);
        LOOKED.set(looked);
        if looked.is_multiple_of(LOOK_EVERY) {
            HALTED.set(stop.is_asked());
        }
        HALTED.get()
    })
}

impl Point for Sketch {
    fn distance(&self, other: &Self) -> f32 {
        // A build cannot be left half-way: when nothing is near anything it ends soon, and what it made is thrown away.
        if is_halted() { f32::MAX } else { self.differing(other) as f32 }
    }
}

/// The graph. No `Debug`: sketches are biometric data.
pub(super) struct Graph(Hnsw<Sketch>);

impl Graph {
    /// Builds it on `threads` threads of the lowest priority, with the row of each node. `None` when told to stop meanwhile, or when
    /// no thread could be had.
    pub(super) fn build(points: Vec<Sketch>, threads: usize, stop: &Stop) -> Option<(Self, Vec<u32>)> {
        let told = stop.clone();
        let pool =
            rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|n| format!("index-{n}")).start_handler(move |_| {
                // Matching comes first. On Linux this is the calling thread's own.
                let _ = rustix::process::nice(19);
                STOP.with(|stop| {
                    let _ = stop.set(told.clone());
                });
            });
        let builder = Builder::default().seed(SEED).ef_construction(CONSTRUCTION).ef_search(CANDIDATES);
        let (graph, ids) = pool.build().ok()?.install(|| builder.build_hnsw(points));
        if stop.is_asked() {
            return None;
        }
        let mut rows = vec![NONE; ids.len()];
        for (row, id) in ids.into_iter().enumerate() {
            rows[id.into_inner() as usize] = u32::try_from(row).ok()?;
        }
        Some((Self(graph), rows))
    }

    /// The nodes nearest to `sketch`, nearest first.
    pub(super) fn nearest(&self, sketch: &Sketch, room: &mut Search) -> Vec<u32> {
        self.0.search(sketch, room).map(|item| item.pid.into_inner()).collect()
    }

    /// The sketch of each node.
    pub(super) fn points(&self) -> impl Iterator<Item = &Sketch> {
        self.0.iter().map(|(_, point)| point)
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        // The layers above the lowest hold a share of 1/ln 32, its square, and so on: 0.41 together, with half the neighbours.
        let nodes = self.0.iter().count();
        nodes * (size_of::<Sketch>() + NEIGHBOURS * 4) + nodes * 41 / 100 * NEIGHBOURS / 2 * 4
    }

    /// The graph as bytes, to be sealed like the gallery: sketches tell who is alike.
    pub(super) fn to_bytes(&self) -> Option<Vec<u8>> {
        postcard::to_allocvec(&self.0).ok()
    }

    /// Reads what [`Graph::to_bytes`] wrote. Whatever the bytes are, no search of the graph can panic.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let outline: Outline = postcard::from_bytes(bytes).ok()?;
        outline.is_sound().then(|| postcard::from_bytes(bytes).ok().map(Self)).flatten()
    }
}

/// The graph's fields as its crate writes them: that crate believes them, so they are checked here first.
#[derive(Serialize, Deserialize)]
struct Outline {
    ef_search: usize,
    points: Vec<Sketch>,
    lowest: Vec<Neighbours>,
    layers: Vec<Vec<[u32; NEIGHBOURS / 2]>>,
}

/// Two halves: serde's own arrays end at 32.
type Neighbours = ([u32; NEIGHBOURS / 2], [u32; NEIGHBOURS / 2]);

impl Outline {
    fn is_sound(&self) -> bool {
        let nodes = self.points.len();
        let is_node = |id: &u32| *id == NONE || (*id as usize) < nodes;
        // A layer may only lead to nodes that it has itself.
        let is_layer = |layer: &Vec<[u32; NEIGHBOURS / 2]>| {
            let within = |id: &u32| *id == NONE || (*id as usize) < layer.len();
            !layer.is_empty() && layer.len() <= nodes && layer.iter().flatten().all(within)
        };
        let lowest = self.lowest.iter().all(|(near, far)| near.iter().chain(far).all(is_node));
        // A higher layer has fewer nodes: those that a search reaches there are in all below.
        let nested = self.layers.windows(2).all(|pair| pair[1].len() <= pair[0].len());
        self.ef_search == CANDIDATES && self.lowest.len() == nodes && lowest && nested && self.layers.iter().all(is_layer)
    }
}
