//! Writes XML into one string. Names are ours and trusted; text is escaped.

use std::fmt::{Display, Write as _};

const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// A document under construction.
#[derive(Debug)]
pub(crate) struct XmlWriter {
    out: String,
}

impl XmlWriter {
    /// Begins with the XML declaration.
    pub(crate) fn new() -> Self {
        let mut out = String::with_capacity(512);
        out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        Self { out }
    }

    /// Opens the root element in S3's namespace.
    pub(crate) fn root(name: &str) -> Self {
        let mut writer = Self::new();
        writer.push(&["<", name, " xmlns=\"", NAMESPACE, "\">"]);
        writer
    }

    fn push(&mut self, pieces: &[&str]) {
        for piece in pieces {
            self.out.push_str(piece);
        }
    }

    pub(crate) fn open(&mut self, name: &str) {
        self.push(&["<", name, ">"]);
    }

    pub(crate) fn close(&mut self, name: &str) {
        self.push(&["</", name, ">"]);
    }

    /// `<name>escaped text</name>`.
    pub(crate) fn text(&mut self, name: &str, text: &str) {
        self.open(name);
        escape_into(&mut self.out, text);
        self.close(name);
    }

    /// Escaped text on its own.
    pub(crate) fn characters(&mut self, text: &str) {
        escape_into(&mut self.out, text);
    }

    /// [`XmlWriter::text`] for what is there.
    pub(crate) fn text_if(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// An element whose text needs no escaping: numbers, ids, tags, fixed words.
    pub(crate) fn plain(&mut self, name: &str, value: impl Display) {
        self.open(name);
        write!(self.out, "{value}").expect("a String takes all that is written");
        self.close(name);
    }

    /// An entity tag in its quotes.
    pub(crate) fn etag(&mut self, etag: drystone_cluster::store::ETag) {
        self.plain("ETag", format_args!("&quot;{etag}&quot;"));
    }

    /// A time in S3's ISO 8601 form, of which S3 keeps whole seconds: clients compare it with `Last-Modified`.
    pub(crate) fn time(&mut self, name: &str, ms: u64) {
        self.open(name);
        crate::timestamp::push_iso8601(&mut self.out, ms / 1000 * 1000);
        self.close(name);
    }

    /// The document.
    pub(crate) fn finish(self) -> String {
        self.out
    }
}

/// Escapes markup, carriage returns (which readers would normalise away) and the control characters that XML 1.0 has no
/// form for; the latter as AWS writes them, so that clients who read leniently get the key back.
fn escape_into(out: &mut String, text: &str) {
    let mut done = 0;
    for (at, byte) in text.bytes().enumerate() {
        let entity = match byte {
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'&' => "&amp;",
            b'"' => "&quot;",
            b'\t' | b'\n' => continue,
            0..=0x1f => {
                out.push_str(&text[done..at]);
                write!(out, "&#x{byte:x};").expect("a String takes all that is written");
                done = at + 1;
                continue;
            }
            _ => continue,
        };
        out.push_str(&text[done..at]);
        out.push_str(entity);
        done = at + 1;
    }
    out.push_str(&text[done..]);
}
