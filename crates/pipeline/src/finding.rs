//! One thing that `oncelog outbox check` or `oncelog sink check` looked at.

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether the relay or sink can run with it as it is.
    pub ok: bool,
    /// What was found.
    pub what: String,
    /// What to do about it: of a fault, its fix; of what is fine, how it could be better.
    pub fix: Option<String>,
}

impl Finding {
    pub fn fine(what: impl Into<String>) -> Finding {
        Finding {
            ok: true,
            what: what.into(),
            fix: None,
        }
    }

    pub fn fault(what: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding {
            ok: false,
            what: what.into(),
            fix: Some(fix.into()),
        }
    }

    /// Works as it is, and somebody may want to change it.
    pub fn advice(what: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding {
            ok: true,
            what: what.into(),
            fix: Some(fix.into()),
        }
    }
}
