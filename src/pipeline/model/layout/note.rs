//! What files do not say.

/// Something about a checkpoint that its files do not say, or say otherwise, and what was made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What was assumed, and why.
    pub text: String,
    /// The option of [`OpenOptions`](super::OpenOptions) that says otherwise, and its value.
    pub option: Option<(&'static str, &'static str)>,
}
