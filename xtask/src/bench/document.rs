//! `docs/performance.md`: what is between its markers is written from the reports.

use anyhow::{Context, Result, bail};

/// `text` with what lies between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->` replaced by `content`.
///
/// # Errors
/// If the two markers are not there, in this order.
pub fn fill(text: &str, name: &str, content: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- bench:{name} -->"), format!("<!-- /bench:{name} -->"));
    let missing = || format!("the document has no {begin} … {end}");
    let (before, rest) = text.split_once(&begin).with_context(missing)?;
    let Some((_, after)) = rest.split_once(&end) else { bail!(missing()) };
    Ok(format!("{before}{begin}\n\n{}\n\n{end}{after}", content.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = "a\n<!-- bench:x -->\nold\n<!-- /bench:x -->\nb\n";
        let filled = fill(text, "x", "new\n").unwrap();
        assert_eq!(filled, "a\n<!-- bench:x -->\n\nnew\n\n<!-- /bench:x -->\nb\n");
        assert_eq!(fill(&filled, "x", "new").unwrap(), filled);
    }

    #[test]
    fn a_document_without_the_markers_is_refused() {
        assert!(fill("<!-- bench:x --> <!-- /bench:y -->", "x", "").is_err());
        assert!(fill("", "x", "").unwrap_err().to_string().contains("<!-- bench:x -->"));
    }
}
