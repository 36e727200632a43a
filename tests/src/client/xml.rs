//! Just enough XML to read answers of S3: a tree of elements with their text, namespaces ignored.

use quick_xml::Reader;
use quick_xml::events::{BytesRef, Event};

/// An element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Its name without prefix.
    pub name: String,
    /// Its own text, all pieces joined.
    pub text: String,
    /// Its children in order.
    pub children: Vec<Element>,
}

impl Element {
    /// Parses a document and returns its root.
    ///
    /// # Errors
    /// What is wrong with the document.
    pub fn parse(document: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::from_reader(document);
        let mut open = vec![Self::default()];
        let malformed = |cause: &dyn std::fmt::Display| Malformed { cause: cause.to_string() };
        loop {
            let event = reader.read_event().map_err(|cause| malformed(&cause))?;
            match event {
                Event::Start(start) => open.push(Self::named(start.local_name().as_ref())),
                Event::Empty(start) => last(&mut open)?.children.push(Self::named(start.local_name().as_ref())),
                Event::End(_) => {
                    let closed = open.pop().ok_or_else(|| malformed(&"unbalanced"))?;
                    last(&mut open)?.children.push(closed);
                }
                Event::Text(text) => last(&mut open)?.text += &text.decode().map_err(|cause| malformed(&cause))?,
                Event::CData(text) => last(&mut open)?.text += &text.decode().map_err(|cause| malformed(&cause))?,
                Event::GeneralRef(reference) => last(&mut open)?.text.push(character(&reference)?),
                Event::Eof => break,
                _ => {}
            }
        }
        let root = open.pop().filter(|_| open.is_empty());
        root.and_then(|mut root| root.children.pop()).ok_or_else(|| malformed(&"no root element"))
    }

    fn named(name: &[u8]) -> Self {
        Self { name: String::from_utf8_lossy(name).into_owned(), ..Self::default() }
    }

    /// The first child of this name.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// All children of this name.
    pub fn children_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The text of the first child of this name, empty if there is none.
    #[must_use]
    pub fn text_of(&self, name: &str) -> &str {
        self.child(name).map_or("", |child| child.text.as_str())
    }
}

fn last(open: &mut [Element]) -> Result<&mut Element, Malformed> {
    open.last_mut().ok_or_else(|| Malformed { cause: "unbalanced".to_owned() })
}

fn character(reference: &BytesRef<'_>) -> Result<char, Malformed> {
    let name = String::from_utf8_lossy(reference).into_owned();
    let unknown = || Malformed { cause: format!("unknown entity &{name};") };
    match reference.resolve_char_ref() {
        Ok(Some(found)) => Ok(found),
        _ => match name.as_str() {
            "amp" => Ok('&'),
            "lt" => Ok('<'),
            "gt" => Ok('>'),
            "quot" => Ok('"'),
            "apos" => Ok('\''),
            _ => Err(unknown()),
        },
    }
}

/// A document that is not XML.
#[derive(Clone, Debug, thiserror::Error)]
#[error("not XML: {cause}")]
pub struct Malformed {
    cause: String,
}

/// Escapes text for an element or an attribute.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_document_with_entities_is_read() {
        let document = b"<?xml version=\"1.0\"?>\n<Error xmlns=\"urn:x\"><Code>NoSuchKey</Code><Key>a &amp; b&#x3C;&lt;</Key><Empty/></Error>";
        let root = Element::parse(document).unwrap();
        assert_eq!((root.name.as_str(), root.text_of("Code"), root.text_of("Key")), ("Error", "NoSuchKey", "a & b<<"));
        assert_eq!(root.children.len(), 3);
        assert!(Element::parse(b"<Error><Code></Error>").is_err());
        assert!(Element::parse(b"").is_err());
    }
}
