//! The text of `shaders/`. A native build contains it; in a browser it is a file of its own, which a page fetches only if the GPU is its
//! device.

#[cfg(target_arch = "wasm32")]
use std::rc::Rc;

/// A file of `shaders/`: its text, which `build.rs` has rid of its comments.
#[cfg(not(target_arch = "wasm32"))]
macro_rules! shader {
    ($name:literal) => {
        include_str!(concat!(env!("OUT_DIR"), "/", $name, ".wgsl"))
    };
}

/// A file of `shaders/`: its name, by which [`Shaders`] knows its text.
#[cfg(target_arch = "wasm32")]
macro_rules! shader {
    ($name:literal) => {
        $name
    };
}

pub(crate) use shader;

/// What the files of `shaders/` say; the default is what is built in.
#[derive(Clone, Debug, Default)]
pub struct Shaders {
    #[cfg(target_arch = "wasm32")]
    files: Rc<str>,
}

impl Shaders {
    /// Those of a text in which each file stands without comments behind a line `// name`.
    #[cfg(target_arch = "wasm32")]
    pub fn new(files: &str) -> Self {
        Self { files: files.into() }
    }

    /// The text of a `shader!`.
    #[cfg(target_arch = "wasm32")]
    pub(super) fn text(&self, name: &'static str) -> &str {
        // What is not there is missed when the kernel is compiled, in an error that names the kernel.
        let mut files = self.files.split("// ");
        files.find_map(|file| file.strip_prefix(name)?.strip_prefix('\n')).unwrap_or_default()
    }

    /// The text of a `shader!`.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn text(&self, text: &'static str) -> &'static str {
        text
    }
}
