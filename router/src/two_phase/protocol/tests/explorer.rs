//! Every interleaving, breadth first: the first violation found has the shortest trace.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use super::rules::Rules;
use super::world::{Move, World};

#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub states: usize,
    pub transitions: usize,
    pub finals: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.states += other.states;
        self.transitions += other.transitions;
        self.finals += other.finals;
    }
}

/// What must never be, and how it comes to be.
pub struct Violation {
    pub what: String,
    pub trace: Vec<Move>,
    words: Vec<String>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.what)?;
        self.words.iter().enumerate().try_for_each(|(at, line)| writeln!(f, "  {:2}. {line}", at + 1))
    }
}

/// Visits every state that can be reached.
pub fn explore(rules: &Rules) -> Result<Counts, Box<Violation>> {
    explore_for(rules, "")
}

/// Visits every state that can be reached, and stops at a violation that begins like this.
pub fn explore_for(rules: &Rules, wanted: &str) -> Result<Counts, Box<Violation>> {
    let first = World::new(rules);
    let mut seen: HashMap<World, usize, BuildHasherDefault<Mix>> = HashMap::default();
    let mut came: Vec<(usize, Option<Move>)> = vec![(0, None)];
    let mut queue = vec![first.clone()];
    seen.insert(first, 0);
    let (mut counts, mut at, mut moves) = (Counts::default(), 0, Vec::new());
    let fail = |what, came: &[(usize, Option<Move>)], at, last| Err(Box::new(tell(rules, what, came, at, last)));
    while at < queue.len() {
        let world = queue[at].clone();
        if world.is_still() {
            counts.finals += 1;
            if let Err(what) = world.settle(rules)
                && what.starts_with(wanted)
            {
                return fail(what, &came, at, None);
            }
        }
        moves.clear();
        world.moves(rules, &mut moves);
        for &happens in &moves {
            counts.transitions += 1;
            let mut next = world.clone();
            if let Err(what) = next.go(rules, happens).and_then(|()| next.check(rules))
                && what.starts_with(wanted)
            {
                return fail(what, &came, at, Some(happens));
            }
            if let Entry::Vacant(entry) = seen.entry(next) {
                queue.push(entry.key().clone());
                entry.insert(came.len());
                came.push((at, Some(happens)));
            }
        }
        at += 1;
    }
    counts.states = queue.len();
    Ok(counts)
}

fn tell(rules: &Rules, what: String, came: &[(usize, Option<Move>)], mut at: usize, last: Option<Move>) -> Violation {
    let mut trace: Vec<Move> = last.into_iter().collect();
    while let (before, Some(happens)) = came[at] {
        trace.push(happens);
        at = before;
    }
    trace.reverse();
    let words = narrate(rules, &trace);
    Violation { what, trace, words }
}

/// A trace in words.
pub fn narrate(rules: &Rules, trace: &[Move]) -> Vec<String> {
    let mut world = World::new(rules);
    let mut words = Vec::new();
    for &happens in trace {
        words.push(world.words(happens));
        let _the_violation_itself = world.go(rules, happens);
    }
    words
}

/// A hasher that is fast without optimisation too.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            self.write_u64(chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value.cast_unsigned() as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
