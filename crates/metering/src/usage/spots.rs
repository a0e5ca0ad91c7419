use std::ops::Range;

use crate::{
    Format,
    json::{Visit, Walker},
};

/// Finds the objects at a dialect's places for usage, and keeps nothing else.
#[derive(Debug)]
pub(crate) struct Spots {
    walker: Walker,
    seeker: Seeker,
    /// An object of which a part came in earlier pieces.
    held: Vec<u8>,
    too_long: bool,
}

#[derive(Debug)]
struct Seeker {
    places: &'static [&'static [&'static str]],
    /// 1 inside an array of documents, as Gemini sends one.
    base: u32,
    outer: Option<&'static str>,
    wanted: Option<usize>,
    /// The place, its depth and where it begins.
    open: Option<(usize, u32, usize)>,
    found: Vec<(usize, Range<usize>)>,
}

/// Usage is some hundred bytes. An object that is longer than this is none.
const LONGEST: usize = 16 << 10;

impl Spots {
    pub(crate) fn new(format: Format) -> Self {
        let places = format.places();
        let seeker =
            Seeker { places, base: 0, outer: None, wanted: None, open: None, found: Vec::new() };
        Self { walker: Walker::new(), seeker, held: Vec::new(), too_long: false }
    }

    /// Begins anew, at the next document.
    pub(crate) fn reset(&mut self) {
        self.walker.reset();
        self.held.clear();
        self.too_long = false;
        let Seeker { base, outer, wanted, open, found, .. } = &mut self.seeker;
        *base = 0;
        (*outer, *wanted, *open) = (None, None, None);
        found.clear();
    }

    /// How much is kept of an object that is not whole yet.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes the next piece and hands over each object that ends in it, with its place.
    pub(crate) fn feed(&mut self, bytes: &[u8], found: &mut dyn FnMut(usize, &[u8])) {
        let start = self.walker.offset();
        let held_before = self.seeker.open.is_some();
        self.walker.feed(bytes, &mut self.seeker);
        let mut held_before = held_before;
        for (place, span) in self.seeker.found.drain(..) {
            let end = span.end.saturating_sub(start);
            if held_before {
                held_before = false;
                keep(&mut self.held, &mut self.too_long, bytes.get(..end));
                if !self.too_long {
                    found(place, &self.held);
                }
                self.held.clear();
                self.too_long = false;
            } else if let Some(object) = bytes.get(span.start.saturating_sub(start)..end)
                && object.len() <= LONGEST
            {
                found(place, object);
            }
        }
        if let Some((.., from)) = self.seeker.open {
            let part = bytes.get(from.saturating_sub(start)..);
            keep(&mut self.held, &mut self.too_long, part);
        }
    }
}

fn keep(held: &mut Vec<u8>, too_long: &mut bool, part: Option<&[u8]>) {
    let part = part.unwrap_or_default();
    if held.len() + part.len() > LONGEST {
        *too_long = true;
        held.clear();
    }
    if !*too_long {
        held.extend_from_slice(part);
    }
}

impl Visit for Seeker {
    fn key(&mut self, depth: u32, key: &[u8]) {
        if self.open.is_some() {
            return;
        }
        let is = |name: &str| name.as_bytes() == key;
        if depth == self.base + 1 {
            self.wanted = self.places.iter().position(|it| matches!(it, [name] if is(name)));
            let outer = self.places.iter().find(|it| matches!(it, [name, _] if is(name)));
            self.outer = outer.and_then(|it| it.first().copied());
        } else if depth == self.base + 2
            && let Some(outer) = self.outer
        {
            self.wanted = self
                .places
                .iter()
                .position(|it| matches!(it, [first, name] if *first == outer && is(name)));
        }
    }

    fn begin(&mut self, depth: u32, at: usize, first: u8) {
        if depth == 0 {
            self.base = u32::from(first == b'[');
        }
        if let Some(place) = self.wanted.take()
            && first == b'{'
        {
            self.open = Some((place, depth, at));
        }
    }

    fn end(&mut self, depth: u32, at: usize) {
        if let Some((place, opened, from)) = self.open
            && opened == depth
        {
            self.open = None;
            self.found.push((place, from..at));
        }
    }
}
