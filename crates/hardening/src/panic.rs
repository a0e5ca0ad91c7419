use std::{
    io::{self, Write},
    panic::{self, Location},
};

/// Makes panics print where they happened and nothing else: a message may hold a secret that was
/// being parsed, formatted or compared.
pub fn silence_panics() {
    panic::set_hook(Box::new(|panic| {
        // Nothing can be done about a standard error that is closed.
        drop(writeln!(io::stderr(), "{}", describe(panic.location())));
    }));
}

fn describe(location: Option<&Location<'_>>) -> String {
    match location {
        Some(place) => format!("panicked at {}:{}:{}", place.file(), place.line(), place.column()),
        None => "panicked at an unknown place".to_owned(),
    }
}
