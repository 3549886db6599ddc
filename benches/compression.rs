//! What does compression save, and what does it cost?

use std::hint::black_box;
use std::time::{Duration, Instant};

use fleetwide_benches::prose::{Document, document};
use fleetwide_benches::{Answer, Contest, Effort, Measure, Row, Spread};
use zstd::bulk::{Compressor, Decompressor};

/// The level of the cache.
const LEVEL: i32 = 1;
/// Different values of a size: what one saves depends on what it says.
const VALUES: u64 = 32;
const SIZES: [usize; 8] = [128, 256, 512, 1024, 2048, 4096, 16_384, 65_536];

/// How a record becomes bytes, and bytes a record.
#[derive(Clone, Copy)]
struct Form {
    name: &'static str,
    write: fn(&Document) -> Vec<u8>,
    read: fn(&[u8]) -> Document,
}

const FORMS: [Form; 2] = [
    Form { name: "JSON", write: to_json, read: from_json },
    Form { name: "bincode", write: to_bincode, read: from_bincode },
];

fn main() {
    let effort = Effort::slices_of(Duration::from_millis(20));
    let mut answer = Answer::new("What does compression save, and what does it cost?");
    for form in FORMS {
        for size in SIZES {
            let values = Values::new(form, size);
            let name = |what: &str| format!("{}, {}: {what}", form.name, shown(size));
            answer.row(Row::new(name("bytes"), values.bytes()).note(values.note()));
            answer.row(Row::new(name("time to write"), values.writes(effort)));
            answer.row(Row::new(name("time to read"), values.reads(effort)));
        }
    }
    answer.note(
        "Floor: the same value encoded, or decoded, and not compressed. Bytes are those of the \
         compressed value by those of the plain one, over 32 values of a size, which is that of \
         the plain form; times are of the codec with zstd by those of the codec alone, on one \
         thread, with contexts that are kept, as the cache does it, at its level 1. Less is \
         better.",
    );
    answer.note(
        "The values are orders with a list of items: numbers, dates, identifiers without a \
         pattern, and words that repeat. What a real record saves depends on how much of it \
         repeats.",
    );
    answer.keep("compression");
}

/// Values of about one size in one form.
struct Values {
    form: Form,
    documents: Vec<Document>,
    plain: Vec<Vec<u8>>,
    packed: Vec<Vec<u8>>,
}

impl Values {
    fn new(form: Form, size: usize) -> Self {
        let documents: Vec<Document> = (0..VALUES)
            .map(|seed| document(seed, size, |value| (form.write)(value).len()))
            .collect();
        let plain: Vec<Vec<u8>> = documents.iter().map(form.write).collect();
        let mut zstd = compressor();
        let packed = plain.iter().map(|plain| pack(&mut zstd, plain)).collect();
        Self { form, documents, plain, packed }
    }

    /// What is left of the bytes.
    fn bytes(&self) -> Spread {
        let both = self.plain.iter().zip(&self.packed);
        Spread::of(both.map(|(plain, packed)| packed.len() as f64 / plain.len() as f64).collect())
    }

    fn note(&self) -> String {
        let mean = |of: &[Vec<u8>]| of.iter().map(Vec::len).sum::<usize>() / of.len();
        format!("{} bytes become {}", mean(&self.plain), mean(&self.packed))
    }

    fn writes(&self, effort: Effort) -> Spread {
        let write = self.form.write;
        let floor = each(&self.documents, |value| drop(black_box(write(value))));
        let mut zstd = compressor();
        let side = each(&self.documents, move |value| {
            drop(black_box(pack(&mut zstd, &write(value))));
        });
        Contest::new(Measure::Cost, effort, floor).ratio(side)
    }

    fn reads(&self, effort: Effort) -> Spread {
        let read = self.form.read;
        let floor = each(&self.plain, |plain| drop(black_box(read(plain))));
        let mut zstd = Decompressor::new().expect("there is room for a context");
        let lens: Vec<(&[u8], usize)> =
            self.packed.iter().map(Vec::as_slice).zip(self.plain.iter().map(Vec::len)).collect();
        let side = each(&lens, move |(packed, len)| {
            let plain = zstd.decompress(packed, *len).expect("it was packed here");
            drop(black_box(read(&plain)));
        });
        Contest::new(Measure::Cost, effort, floor).ratio(side)
    }
}

/// A side that does `one` to all in turn.
fn each<'a, T, F>(all: &'a [T], mut one: F) -> impl FnMut(u64) -> Duration + use<'a, T, F>
where
    F: FnMut(&T) + 'a,
{
    move |count| {
        let begun = Instant::now();
        for item in all.iter().cycle().take(count as usize) {
            one(black_box(item));
        }
        begun.elapsed()
    }
}

fn compressor() -> Compressor<'static> {
    Compressor::new(LEVEL).expect("there is room for a context")
}

fn pack(zstd: &mut Compressor<'_>, plain: &[u8]) -> Vec<u8> {
    zstd.compress(plain).expect("records can be compressed")
}

fn shown(size: usize) -> String {
    if size < 1024 { format!("{size} bytes") } else { format!("{} KiB", size / 1024) }
}

fn to_json(value: &Document) -> Vec<u8> {
    serde_json::to_vec(value).expect("a record of texts and numbers can be encoded")
}

fn from_json(bytes: &[u8]) -> Document {
    serde_json::from_slice(bytes).expect("what was read is what was written")
}

fn to_bincode(value: &Document) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, bincode::config::standard())
        .expect("a record of texts and numbers can be encoded")
}

fn from_bincode(bytes: &[u8]) -> Document {
    let decoded = bincode::serde::decode_from_slice(bytes, bincode::config::standard());
    decoded.expect("what was read is what was written").0
}
