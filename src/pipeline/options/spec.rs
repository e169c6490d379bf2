//! What an option is to its faces: the words, types and limits that the command, the package and the page give it.
//!
//! Nothing of the crate is used here: whatever writes the faces reads this file and the table by themselves.

/// The values that an option takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// One text.
    Text,
    /// A text for all pictures, or a list with one for each.
    Texts,
    /// A whole number from 0 to 2^64 − 1.
    Seed,
    /// A list of seeds.
    Seeds,
    /// A number of steps, from 1.
    Steps,
    /// A whole number, which the package takes from 1 on.
    Count,
    /// A whole number from 0.
    Whole,
    /// A list of whole numbers.
    Wholes,
    /// A finite number.
    Number,
    /// A list of finite numbers.
    Numbers,
    /// Two whole numbers with a name each, vertical before horizontal.
    Pair([&'static str; 2]),
    /// True, or by default false.
    Flag,
    /// True or false; if absent, something else decides.
    Setting,
    /// One of these names, each with a sentence; the first is the default unless something else decides.
    Choice(&'static [(&'static str, &'static str)]),
    /// The name of something, such as one of these.
    Name(&'static [&'static str]),
    /// A solver by any of its names.
    Solver,
    /// The content of a `scheduler_config.json`.
    Config,
    /// A picture.
    Picture,
    /// A list of pictures.
    Pictures,
}

/// Cases in which a picture says of an option what it was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// If it was given and is not the default.
    Given,
    /// Always.
    Always,
    /// Never: it says how many pictures there are, and is nothing to one of them.
    Never,
}

/// What an option is to its faces, beside its name and its description.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Kind of the values that the option takes.
    pub kind: Kind,
    /// True if the schedule of a run depends on it.
    pub is_of_schedule: bool,
    /// True if the package wants it.
    pub is_required: bool,
    /// What the package adds to the description; `None` if the package has no such option.
    pub package: Option<&'static str>,
    /// The name of its type in TypeScript, where that is not its kind's.
    pub typescript: Option<&'static str>,
    /// What the command adds to the description; `None` if the command has no such option.
    pub command: Option<&'static str>,
    /// What stands for the value in the command's help, where that is not its kind's.
    pub value_name: Option<&'static str>,
    /// The options that the command wants beside it.
    pub requires: &'static [&'static str],
    /// The options that the command does not take beside it.
    pub conflicts: &'static [&'static str],
    /// Cases in which a picture says the option.
    pub recorded: Recorded,
    /// The least and the largest number that the page's field takes.
    pub limits: Option<[f64; 2]>,
    /// What stands in the page's field while it is empty, where that is not the default.
    pub placeholder: Option<&'static str>,
}

impl Spec {
    const fn new(kind: Kind) -> Self {
        Self {
            kind,
            is_of_schedule: false,
            is_required: false,
            package: Some(""),
            typescript: None,
            command: Some(""),
            value_name: None,
            requires: &[],
            conflicts: &[],
            recorded: Recorded::Given,
            limits: None,
            placeholder: None,
        }
    }

    /// The schedule of a run depends on it.
    pub const fn of_schedule(self) -> Self {
        Self { is_of_schedule: true, ..self }
    }

    /// The package wants it.
    pub const fn required(self) -> Self {
        Self { is_required: true, ..self }
    }

    /// The package adds `words` to the description.
    pub const fn package(self, words: &'static str) -> Self {
        Self { package: Some(words), ..self }
    }

    /// Its type is `name` in TypeScript.
    pub const fn typescript(self, name: &'static str) -> Self {
        Self { typescript: Some(name), ..self }
    }

    /// The command adds `words` to the description.
    pub const fn command(self, words: &'static str) -> Self {
        Self { command: Some(words), ..self }
    }

    /// `name` stands for the value in the command's help.
    pub const fn value_name(self, name: &'static str) -> Self {
        Self { value_name: Some(name), ..self }
    }

    /// The command takes it beside all of `options` only.
    pub const fn requires(self, options: &'static [&'static str]) -> Self {
        Self { requires: options, ..self }
    }

    /// The command takes it beside none of `options`.
    pub const fn conflicts(self, options: &'static [&'static str]) -> Self {
        Self { conflicts: options, ..self }
    }

    /// The command has no such option.
    pub const fn without_command(self) -> Self {
        Self { command: None, ..self }
    }

    /// The package has no such option.
    pub const fn without_package(self) -> Self {
        Self { package: None, ..self }
    }

    /// A picture says it whatever it is.
    pub const fn always_recorded(self) -> Self {
        Self { recorded: Recorded::Always, ..self }
    }

    /// A picture does not say it.
    pub const fn never_recorded(self) -> Self {
        Self { recorded: Recorded::Never, ..self }
    }

    /// The page's field takes numbers from `least` to `most`.
    pub const fn limits(self, least: f64, most: f64) -> Self {
        Self { limits: Some([least, most]), ..self }
    }

    /// `words` stand in the page's field while it is empty.
    pub const fn placeholder(self, words: &'static str) -> Self {
        Self { placeholder: Some(words), ..self }
    }
}

pub(super) const fn text() -> Spec {
    Spec::new(Kind::Text)
}

pub(super) const fn texts() -> Spec {
    Spec::new(Kind::Texts)
}

pub(super) const fn seed() -> Spec {
    Spec::new(Kind::Seed).always_recorded()
}

pub(super) const fn seeds() -> Spec {
    Spec::new(Kind::Seeds)
}

pub(super) const fn steps() -> Spec {
    Spec::new(Kind::Steps)
}

pub(super) const fn count() -> Spec {
    Spec::new(Kind::Count)
}

pub(super) const fn whole() -> Spec {
    Spec::new(Kind::Whole)
}

pub(super) const fn wholes() -> Spec {
    Spec::new(Kind::Wholes)
}

pub(super) const fn number() -> Spec {
    Spec::new(Kind::Number)
}

pub(super) const fn numbers() -> Spec {
    Spec::new(Kind::Numbers)
}

pub(super) const fn pair(names: [&'static str; 2]) -> Spec {
    Spec::new(Kind::Pair(names))
}

pub(super) const fn flag() -> Spec {
    Spec::new(Kind::Flag)
}

pub(super) const fn setting() -> Spec {
    Spec::new(Kind::Setting)
}

pub(super) const fn choice(names: &'static [(&'static str, &'static str)]) -> Spec {
    Spec::new(Kind::Choice(names))
}

pub(super) const fn name(such_as: &'static [&'static str]) -> Spec {
    Spec::new(Kind::Name(such_as))
}

pub(super) const fn solver() -> Spec {
    Spec::new(Kind::Solver)
}

pub(super) const fn config() -> Spec {
    Spec::new(Kind::Config)
}

pub(super) const fn picture() -> Spec {
    Spec::new(Kind::Picture)
}

pub(super) const fn pictures() -> Spec {
    Spec::new(Kind::Pictures)
}

/// A field of a record of options: one option, or several that it is made of.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name in Rust, which is diffusers' where it has one.
    pub name: &'static str,
    /// Lines of the description.
    pub lines: &'static [&'static str],
    /// The default, as it is written in Rust.
    pub default: &'static str,
    /// What the one option is; empty if there are several.
    pub spec: &'static [Spec],
    /// The several options.
    pub parts: &'static [Part],
}

/// One of the options that a field is made of.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Name.
    pub name: &'static str,
    /// Lines of the description.
    pub lines: &'static [&'static str],
    /// What it is.
    pub spec: Spec,
}

/// An option with its description.
#[derive(Clone, Debug)]
pub struct Described {
    /// Name in Rust.
    pub name: &'static str,
    /// The description, in which options of the same record stand in backquotes under their names in Rust.
    pub words: String,
    /// The default, as JSON; `None` if something else decides.
    pub default: Option<String>,
    /// What it is to its faces.
    pub spec: Spec,
}

/// The options of a record, in order.
pub fn described(fields: &[Field]) -> Vec<Described> {
    let words = |lines: &[&str]| lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    let own = |field: &Field| {
        let of = |spec: &Spec| Described {
            name: field.name,
            words: words(field.lines),
            default: default(field.default, spec.kind),
            spec: *spec,
        };
        let part = |part: &Part| Described {
            name: part.name,
            words: words(part.lines),
            default: default("None", part.spec.kind),
            spec: part.spec,
        };
        field.spec.iter().map(of).chain(field.parts.iter().map(part)).collect::<Vec<_>>()
    };
    fields.iter().flat_map(own).collect()
}

/// The default of an option of a kind, from Rust's `code` to JSON.
fn default(code: &str, kind: Kind) -> Option<String> {
    match kind {
        _ if code == "None" => (kind == Kind::Flag).then(|| "false".to_owned()),
        Kind::Choice(names) => names.first().map(|(name, _)| format!("{name:?}")),
        Kind::Number | Kind::Steps | Kind::Count | Kind::Whole | Kind::Seed => {
            Some(code.trim_end_matches(".0").to_owned())
        }
        Kind::Pair(_) | Kind::Flag => Some(code.to_owned()),
        _ => None,
    }
}

/// The description `words` with each of `options` in it, which stands in backquotes, as `written` has it.
pub fn with_names(words: &str, options: &[Described], written: &dyn Fn(&str) -> String) -> String {
    let is_option = |text: &str| options.iter().any(|option| option.name == text);
    let parts = words.split('`').enumerate().map(|(index, text)| match index % 2 {
        0 => text.to_owned(),
        _ if is_option(text) => written(text),
        _ => format!("`{text}`"),
    });
    parts.collect()
}
