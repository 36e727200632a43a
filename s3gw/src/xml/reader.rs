//! Reads an XML document into a tree. Knows nothing of S3.

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};

/// S3's requests nest four deep at most.
const DEPTH_MAX: usize = 8;
/// A completion of 10,000 parts with a number, a tag and checksums stays below.
const ELEMENT_COUNT_MAX: usize = 100_000;

/// An element with what is in it. Attributes are dropped: S3's requests have none that mean anything here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    /// Local name, without a namespace prefix.
    pub(crate) name: Box<str>,
    /// All character data directly inside.
    pub(crate) text: String,
    /// The elements inside, in order.
    pub(crate) children: Vec<Element>,
}

impl Element {
    /// The first child of that name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| &*child.name == name)
    }

    /// The text of the first child of that name.
    pub(crate) fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.as_str())
    }
}

/// The bytes are not a document this reader accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

struct Builder {
    open: Vec<Element>,
    root: Option<Element>,
    count: usize,
}

impl Builder {
    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), Malformed> {
        self.count += 1;
        if self.open.len() >= DEPTH_MAX || self.count > ELEMENT_COUNT_MAX || self.root.is_some() {
            return Err(Malformed);
        }
        let name = std::str::from_utf8(start.local_name().into_inner()).map_err(|_| Malformed)?.into();
        self.open.push(Element { name, ..Element::default() });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Malformed> {
        let done = self.open.pop().ok_or(Malformed)?;
        match self.open.last_mut() {
            Some(parent) => parent.children.push(done),
            None => self.root = Some(done),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), Malformed> {
        match self.open.last_mut() {
            Some(element) => element.text.push_str(text),
            None if text.trim().is_empty() => {}
            None => return Err(Malformed),
        }
        Ok(())
    }

    fn reference(&mut self, reference: &BytesRef<'_>) -> Result<(), Malformed> {
        let mut buffer = [0; 4];
        let text: &str = match reference.resolve_char_ref().map_err(|_| Malformed)? {
            Some(character) => character.encode_utf8(&mut buffer),
            None => match &**reference {
                b"lt" => "<",
                b"gt" => ">",
                b"amp" => "&",
                b"apos" => "'",
                b"quot" => "\"",
                _ => return Err(Malformed),
            },
        };
        if self.open.is_empty() { Err(Malformed) } else { self.text(text) }
    }
}

/// Reads one document. Memory is at most a small multiple of its length.
pub(crate) fn parse(bytes: &[u8]) -> Result<Element, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed)?;
    let mut reader = Reader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut builder = Builder { open: Vec::new(), root: None, count: 0 };
    loop {
        match reader.read_event().map_err(|_| Malformed)? {
            Event::Start(start) => builder.start(&start)?,
            Event::End(_) => builder.end()?,
            Event::Empty(start) => {
                builder.start(&start)?;
                builder.end()?;
            }
            Event::Text(text) => builder.text(&text.xml10_content().map_err(|_| Malformed)?)?,
            Event::CData(data) => builder.text(&data.xml10_content().map_err(|_| Malformed)?)?,
            Event::GeneralRef(reference) => builder.reference(&reference)?,
            Event::DocType(_) => return Err(Malformed),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    if builder.open.is_empty() { builder.root.ok_or(Malformed) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_taken_as_it_stands() {
        let root =
            parse(b"<?xml version='1.0'?><A xmlns='x'><Key> a&amp;b&#x20;&lt;<![CDATA[<&]]> </Key><E/></A>").unwrap();
        assert_eq!(root.text_of("Key"), Some(" a&b <<& "));
        assert_eq!(root.child("E"), Some(&Element { name: "E".into(), ..Element::default() }));
    }

    #[test]
    fn hostile_and_broken_documents_are_refused() {
        let deep = format!("{}{}", "<a>".repeat(9), "</a>".repeat(9));
        let wide = format!("<a>{}</a>", "<b/>".repeat(ELEMENT_COUNT_MAX));
        for document in [
            "",
            "text",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a>&unknown;</a>",
            "<a>&#xD800;</a>",
            "<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>",
            "<a/>trailing",
            &deep,
            &wide,
        ] {
            assert_eq!(parse(document.as_bytes()), Err(Malformed), "{}", &document[..document.len().min(60)]);
        }
        assert_eq!(parse(b"<a>\xff</a>"), Err(Malformed));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            drop(parse(&bytes));
        }

        #[test]
        fn any_markup_is_read_or_refused(text in "[<>/a&;#x\\[\\]!CDAT? \"'=-]{0,80}") {
            drop(parse(text.as_bytes()));
        }

        #[test]
        fn written_text_is_read_back(text in "[^\r\u{0}-\u{8}\u{b}\u{c}\u{e}-\u{1f}\u{fffe}\u{ffff}]{0,40}") {
            let mut xml = crate::xml::XmlWriter::new();
            xml.open("R");
            xml.text("K", &text);
            xml.close("R");
            let root = parse(xml.finish().as_bytes()).unwrap();
            proptest::prop_assert_eq!(root.text_of("K"), Some(text.as_str()));
        }
    }
}
