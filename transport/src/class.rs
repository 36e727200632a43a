//! The two kinds of connection between a pair of nodes.

/// What a connection carries. Each class has its own connection, windows and runtime, so that bulk data cannot delay
/// an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Consensus and heartbeats.
    Control,
    /// Everything else: chunks, and the calls to index and control groups.
    Data,
}

impl Class {
    /// Both, in wire order.
    pub const ALL: [Class; 2] = [Class::Control, Class::Data];

    /// Its number on the wire; append-only.
    pub const fn number(self) -> u8 {
        match self {
            Class::Control => 0,
            Class::Data => 1,
        }
    }

    /// The class with this number.
    pub const fn from_number(number: u8) -> Option<Class> {
        match number {
            0 => Some(Class::Control),
            1 => Some(Class::Data),
            _ => None,
        }
    }

    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Control => "control",
            Class::Data => "data",
        }
    }

    pub(crate) const fn index(self) -> usize {
        match self {
            Class::Control => 0,
            Class::Data => 1,
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
