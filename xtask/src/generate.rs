//! What other languages need of the options, written from the library's table: the package's rules and types, and the limits of the
//! page's fields.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::options::spec::{Described, Kind, described, with_names};
use crate::options::{BoundOptions, ForwardOptions, SampleOptions, camel_case};
use crate::tools::root;

/// Where the package's rules are.
const RULES: &str = "js/rules.js";

/// Where the package's types are.
const TYPES: &str = "js/index.d.ts";

/// Where the page's fields are.
const PAGE: &str = "www/index.html";

const SOURCE: &str = "src/pipeline/options/table.rs";

/// Writes the generated files.
pub fn write() -> Result<()> {
    for (path, text) in files()? {
        if fs::read_to_string(&path).unwrap_or_default() != text {
            fs::write(&path, text).with_context(|| path.display().to_string())?;
            println!("{}", path.display());
        }
    }
    Ok(())
}

/// The files with what they should hold.
fn files() -> Result<Vec<(PathBuf, String)>> {
    let read = |name: &str| fs::read_to_string(root().join(name)).with_context(|| name.to_owned());
    let files = [(RULES, rules()), (TYPES, types(&read(TYPES)?)?), (PAGE, page(&read(PAGE)?)?)];
    Ok(files.into_iter().map(|(name, text)| (root().join(name), text)).collect())
}

/// The options of a record that the package has.
fn of_package(record: Vec<Described>) -> Vec<Described> {
    record.into_iter().filter(|option| option.spec.package.is_some()).collect()
}

/// The names and values of options, for the package to check.
fn rules() -> String {
    let mut text = format!(
        "// @ts-check\n// The options of a run by name, each with the kind of its values or the list of them. `cargo xtask generate` writes this \
         file,\n// from {SOURCE}.\n"
    );
    let run = of_package(described(SampleOptions::FIELDS));
    let records = [
        ("SAMPLE", run.clone()),
        ("FORWARD", of_package(described(ForwardOptions::FIELDS))),
        ("BOUND", of_package(described(BoundOptions::FIELDS))),
    ];
    for (name, record) in records {
        text += &format!("\nexport const {name} = {{\n");
        for option in record {
            text += &format!("  {}: {},\n", camel_case(option.name), rule(option.spec.kind));
        }
        text += "};\n";
    }
    let of_schedule: Vec<String> = run
        .iter()
        .filter(|option| option.spec.is_of_schedule)
        .map(|option| format!("  {:?},\n", camel_case(option.name)))
        .collect();
    text + "\n/** Those of a run that its schedule depends on. */\nexport const OF_SCHEDULE = [\n"
        + &of_schedule.concat()
        + "];\n"
}

fn rule(kind: Kind) -> String {
    let name = match kind {
        Kind::Text => "text",
        Kind::Texts => "texts",
        Kind::Seed => "seed",
        Kind::Seeds => "seeds",
        Kind::Steps | Kind::Count => "count",
        Kind::Whole => "whole",
        Kind::Wholes => "wholes",
        Kind::Number => "number",
        Kind::Numbers => "numbers",
        Kind::Pair(_) => "pair",
        Kind::Flag | Kind::Setting => "flag",
        Kind::Name(_) => "text",
        Kind::Solver => "solver",
        Kind::Config => "config",
        Kind::Picture => "picture",
        Kind::Pictures => "pictures",
        Kind::Choice(names) => {
            let names: Vec<String> = names.iter().map(|(name, _)| format!("{name:?}")).collect();
            return format!("[{}]", names.join(", "));
        }
    };
    format!("{name:?}")
}

/// The package's types, with the options of each record in their place.
fn types(old: &str) -> Result<String> {
    let records = [
        ("SampleOptions", SampleOptions::FIELDS),
        ("ForwardOptions", ForwardOptions::FIELDS),
        ("BoundOptions", BoundOptions::FIELDS),
    ];
    let mut text = old.to_owned();
    for (name, fields) in records {
        let options = of_package(described(fields));
        let members: String = options.iter().map(|option| member(option, &options)).collect();
        text = with_part(&text, name, &members).with_context(|| TYPES.to_owned())?;
    }
    let run = of_package(described(SampleOptions::FIELDS));
    let names: String = run
        .iter()
        .filter(|option| option.spec.is_of_schedule)
        .map(|option| format!("  | {:?}\n", camel_case(option.name)))
        .collect();
    let schedule = format!("export type ScheduleOptions = Pick<\n  SampleOptions,\n{names}  | \"signal\"\n>;\n");
    with_part(&text, "ScheduleOptions", &schedule).with_context(|| TYPES.to_owned())
}

/// The part `name` of `text`, which stands between two comments, replaced.
fn with_part(text: &str, name: &str, part: &str) -> Result<String> {
    let (from, to) =
        (format!("// <{name}: written by `cargo xtask generate` from {SOURCE}>\n"), format!("// </{name}>"));
    let Some((before, rest)) = text.split_once(&from) else { bail!("there is no line {from:?}") };
    let Some((_, after)) = rest.split_once(&to) else { bail!("there is no {to:?}") };
    let indent = before.len() - before.trim_end_matches(' ').len();
    Ok(format!("{before}{from}{part}{}{to}{after}", " ".repeat(indent)))
}

/// An option as a member of an interface.
fn member(option: &Described, options: &[Described]) -> String {
    let quoted = |name: &str| format!("`{}`", camel_case(name));
    let mut words = with_names(&option.words, options, &quoted);
    if let Some(more) = option.spec.package.filter(|more| !more.is_empty()) {
        words += &format!(" {}", with_names(more, options, &quoted));
    }
    let mut lines = vec![words];
    let mut default = option.default.clone();
    if let Kind::Choice(names) = option.spec.kind {
        for (name, meaning) in names {
            let is_default = default.as_deref() == Some(&format!("{name:?}"));
            lines.push(format!("- `{name:?}`{}: {meaning}.", if is_default { ", the default" } else { "" }));
        }
        default = None;
    }
    if let (Some(first), Some(default)) = (lines.first_mut(), default) {
        *first += &format!(" Default {default}.");
    }
    let mark = if option.spec.is_required { "" } else { "?" };
    let or = if option.spec.is_required { "" } else { " | undefined" };
    let name = camel_case(option.name);
    format!("{}  {name}{mark}: {}{or};\n", comment(&lines), typescript(option))
}

/// Lines as a comment before a member.
fn comment(lines: &[String]) -> String {
    const WIDTH: usize = 120;
    const LINK: &str = "{@link\u{a0}";
    if let [line] = lines
        && line.chars().count() + "  /** */ ".len() <= WIDTH
    {
        return format!("  /** {line} */\n");
    }
    let mut text = "  /**\n".to_owned();
    for line in lines {
        let (first, rest) = if line.starts_with("- ") { ("   * ", "   *   ") } else { ("   * ", "   * ") };
        let mut row = first.to_owned();
        // A link stays in one row.
        for word in line.replace("{@link ", LINK).split(' ').map(|word| word.replace(LINK, "{@link ")) {
            if row.chars().count() + word.chars().count() > WIDTH {
                text += &format!("{}\n", row.trim_end());
                row = rest.to_owned();
            }
            row += &format!("{word} ");
        }
        text += &format!("{}\n", row.trim_end());
    }
    text + "   */\n"
}

fn typescript(option: &Described) -> String {
    if let Some(name) = option.spec.typescript {
        return name.to_owned();
    }
    let names = |names: &[&str]| names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" | ");
    match option.spec.kind {
        Kind::Text => "string".into(),
        Kind::Texts => "string | readonly string[]".into(),
        Kind::Seed => "number | bigint".into(),
        Kind::Seeds => "readonly (number | bigint)[]".into(),
        Kind::Steps | Kind::Count | Kind::Whole | Kind::Number => "number".into(),
        Kind::Wholes | Kind::Numbers => "readonly number[]".into(),
        Kind::Pair([one, other]) => format!("readonly [{one}: number, {other}: number]"),
        Kind::Flag | Kind::Setting => "boolean".into(),
        Kind::Choice(choices) => names(&choices.iter().map(|(name, _)| *name).collect::<Vec<_>>()),
        Kind::Name(such_as) => format!("{} | (string & {{}})", names(such_as)),
        Kind::Solver => "Solver | (string & {})".into(),
        Kind::Config => "Readonly<Record<string, unknown>>".into(),
        Kind::Picture => "PictureSource".into(),
        Kind::Pictures => "readonly PictureSource[]".into(),
    }
}

/// The page, with the limits of each field that holds an option's number.
fn page(old: &str) -> Result<String> {
    let options = described(SampleOptions::FIELDS);
    let mut text = String::new();
    let mut rest = old;
    while let Some(start) = rest.find("<input") {
        let end = start + rest[start..].find('>').context("an <input> without an end")?;
        let (before, tag) = (&rest[..start], &rest[start..end]);
        text += before;
        let limited = attribute(tag, "data-limits").or(attribute(tag, "data-option"));
        let option = limited.and_then(|name| options.iter().find(|option| camel_case(option.name) == name));
        text += &match option {
            Some(option) if attribute(tag, "type") == Some("number") => with_limits(tag, option),
            _ => tag.to_owned(),
        };
        rest = &rest[end..];
    }
    Ok(text + rest)
}

/// The value of an attribute in a tag.
fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    tag.split_once(&format!(" {name}=\""))?.1.split('"').next()
}

/// The tag of a field with the limits of its option.
fn with_limits(tag: &str, option: &Described) -> String {
    let step = if matches!(option.spec.kind, Kind::Number) { "any" } else { "1" };
    let mut limits = vec![("step", step.to_owned())];
    if let Some([least, most]) = option.spec.limits {
        limits.extend([("min", least.to_string()), ("max", most.to_string())]);
    }
    let words = tag.split('"').step_by(2).collect::<String>();
    if !words.contains(" required") {
        let placeholder = option.spec.placeholder.map(str::to_owned).or(option.default.clone());
        limits.extend(placeholder.map(|words| ("placeholder", words)));
    }
    limits.iter().fold(tag.to_owned(), |tag, (name, value)| match attribute(&tag, name) {
        Some(old) => tag.replace(&format!(" {name}=\"{old}\""), &format!(" {name}=\"{value}\"")),
        None => tag.replacen(" type=\"number\"", &format!(" type=\"number\" {name}=\"{value}\""), 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_languages_have_of_the_options_is_what_the_table_says() {
        for (path, text) in files().unwrap() {
            let held = fs::read_to_string(&path).unwrap_or_default();
            assert!(held == text, "{} is stale: run `cargo xtask generate`", path.display());
        }
    }

    #[test]
    fn a_long_description_is_broken_between_words() {
        let line = "word ".repeat(40).trim().to_owned();
        let text = comment(&[line.clone(), "- `\"a\"`: one.".into()]);
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        assert_eq!(text.matches("word").count(), 40);
        assert!(text.ends_with("   * - `\"a\"`: one.\n   */\n"), "{text}");
        assert_eq!(comment(&["short.".into()]), "  /** short. */\n");
    }

    #[test]
    fn a_field_gets_the_limits_of_its_option_and_keeps_the_rest() {
        let page =
            page(r#"<input id="a" data-option="eta" type="number" min="3" class="b" /><input id="seed" />"#).unwrap();
        let expected = r#"<input id="a" data-option="eta" type="number" placeholder="0" max="1" step="any" min="0" class="b" /><input id="seed" />"#;
        assert_eq!(page, expected);
    }
}
