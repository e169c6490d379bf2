//! Facts that files do not tell.

/// Something about a checkpoint that its files do not say, or say otherwise, and what was made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The assumption, and why it was made.
    pub text: String,
    /// The option of [`OpenOptions`](super::OpenOptions) that says otherwise, and its value.
    pub option: Option<(&'static str, &'static str)>,
}
