use crate::{
    Format, Reading, Usage,
    usage::{events::Events, figures::Figures, frames::Frames, spots::Spots},
};

/// Reads the usage of one answer while the answer passes. It keeps no part of the answer but figures,
/// and at most some kilobytes of a line or an object that is not whole yet.
#[derive(Debug)]
pub struct Meter {
    reading: Reading,
    form: Form,
    figures: Option<Figures>,
    /// Whether an object was seen that is not the opening one.
    closing: bool,
    bytes: u64,
}

/// How an answer is framed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Framing {
    /// One JSON document, or an array of them.
    Document,
    /// Server-sent events.
    Events,
    /// AWS's event stream.
    Frames,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// The provider ended it.
    Whole,
    /// It was cut off, by whomever.
    Cut,
}

/// What is known of a call's usage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Metered {
    /// The provider's last word.
    Final(Usage),
    /// What the provider had said before the answer was cut off. It may have taken more.
    Partial(Usage),
    /// The provider said nothing that could be read.
    Missing,
}

#[derive(Debug)]
enum Form {
    Document(Spots),
    Events(Box<Events>),
    Frames(Frames),
}

impl Framing {
    /// The framing of an answer with this `content-type`.
    pub fn of_content_type(value: &str) -> Self {
        let kind = value.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case("text/event-stream") {
            Self::Events
        } else if kind.eq_ignore_ascii_case("application/vnd.amazon.eventstream") {
            Self::Frames
        } else {
            Self::Document
        }
    }
}

impl Meter {
    /// A meter for one answer, whose body must not be compressed.
    pub fn new(reading: Reading, framing: Framing) -> Self {
        let format = reading.format();
        let form = match framing {
            Framing::Document => Form::Document(Spots::new(format)),
            Framing::Events => Form::Events(Box::new(Events::new(format))),
            Framing::Frames => Form::Frames(Frames::new(format)),
        };
        Self { reading, form, figures: None, closing: false, bytes: 0 }
    }

    /// Takes the next chunk of the answer, wherever it was cut.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.bytes = self.bytes.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        self.with_form(|form, found| match form {
            Form::Document(spots) => spots.feed(chunk, found),
            Form::Events(events) => events.feed(chunk, found),
            Form::Frames(frames) => frames.feed(chunk, found),
        });
    }

    /// What was read, now that the answer is over.
    pub fn finish(mut self, ended: Ended) -> Metered {
        self.with_form(|form, found| match form {
            Form::Events(events) => events.finish(found),
            Form::Document(_) | Form::Frames(_) => {}
        });
        let Some(figures) = self.figures else { return Metered::Missing };
        let usage = figures.usage(self.reading);
        // Sums so far are the last ones only when nothing can come after them. A document has one object
        // of usage, but Gemini's can be an array of documents.
        let one = matches!(self.form, Form::Document(_)) && self.reading.format() != Format::Gemini;
        let more = self.reading.is_cumulative && !one;
        let last = self.closing && (ended == Ended::Whole || !more);
        if last { Metered::Final(usage) } else { Metered::Partial(usage) }
    }

    /// How many bytes of the answer have passed: more than tokens of output that were heard of.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn with_form(&mut self, work: impl FnOnce(&mut Form, &mut dyn FnMut(usize, &[u8]))) {
        let Self { reading, form, figures, closing, .. } = self;
        let opening = reading.format().opening();
        work(form, &mut |place, object| {
            if let Some(read) = Figures::read(*reading, place, object) {
                *figures = Some(figures.map_or(read, |earlier| read.or(earlier)));
                *closing |= Some(place) != opening;
            }
        });
    }
}
