//! Reading a TOML table key by key: what is asked for is known, what remains is an error with its
//! line.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;

/// A file's text and what was found out about it.
pub(super) struct Source<'t> {
    path: &'t Path,
    text: &'t str,
    problems: RefCell<Vec<(usize, Problem)>>,
    keys: RefCell<Vec<String>>,
}

/// One table of the file, or a table that is not there.
pub(super) struct Section<'s, 't> {
    source: &'s Source<'t>,
    /// `learning.`; empty at the top.
    prefix: String,
    table: Option<&'s DeTable<'t>>,
    /// Where the table begins, for a key that is missing.
    at: usize,
    known: Vec<&'static str>,
}

/// Why a value will not do.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Follows the key and its value: `is not a duration`.
    pub(super) what: String,
    /// What to write instead.
    pub(super) remedy: String,
}

// === impl Source ===

impl<'t> Source<'t> {
    pub(super) fn new(path: &'t Path, text: &'t str) -> Self {
        Self { path, text, problems: RefCell::default(), keys: RefCell::default() }
    }

    /// The file's top table; a file that is no TOML gives an empty one and a problem.
    pub(super) fn parse(&self) -> Spanned<DeTable<'t>> {
        DeTable::parse(self.text).unwrap_or_else(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let what = error.message().trim().replace('\n', ", ");
            self.problem(
                at,
                what,
                "write it as TOML: `key = value` under a `[section]`".to_owned(),
            );
            Spanned::new(0..0, DeTable::new())
        })
    }

    pub(super) fn top<'s>(&'s self, table: &'s DeTable<'t>) -> Section<'s, 't> {
        Section {
            source: self,
            prefix: String::new(),
            table: Some(table),
            at: 0,
            known: Vec::new(),
        }
    }

    pub(super) fn problem(&self, at: usize, what: String, remedy: String) {
        let line = self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let problem = Problem { path: self.path.to_owned(), line, what, remedy };
        self.problems.borrow_mut().push((at, problem));
    }

    /// What is wrong, in the file's order, and every key that was asked for.
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<String>) {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(at, _)| *at);
        let problems = problems.into_iter().map(|(_, problem)| problem).collect();
        (problems, self.keys.into_inner())
    }

    fn shown(&self, span: Range<usize>) -> &'t str {
        let text = self.text.get(span).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        line.char_indices().nth(60).map_or(line, |(end, _)| line.get(..end).unwrap_or(line))
    }
}

// === impl Section ===

impl<'s, 't> Section<'s, 't> {
    /// The value of `key` as `parse` reads it; the default where the key is absent or wrong.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&DeValue<'t>) -> Result<T, Wrong>,
    ) -> T {
        let Some((at, value)) = self.find(key) else { return default };
        parse(value.get_ref()).unwrap_or_else(|wrong| {
            let shown = self.source.shown(value.span());
            let what = format!("`{}{key}` = {shown} {}", self.prefix, wrong.what);
            self.source.problem(at, what, wrong.remedy);
            default
        })
    }

    /// The value of a key that has no default.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl FnOnce(&DeValue<'t>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let value = self.get(key, None, |value| parse(value).map(Some));
        if value.is_none() && self.lookup(key).is_none() {
            let what = format!("`{}{key}` is missing", self.prefix);
            self.source.problem(self.at, what, format!("add `{key} = {example}`"));
        }
        value
    }

    /// A table below this one.
    pub(super) fn section(&mut self, key: &'static str) -> Self {
        let found = self.find(key);
        let table = found.and_then(|(_, value)| value.get_ref().as_table());
        if let Some((at, value)) = found
            && table.is_none()
        {
            let what = format!(
                "`{}{key}` is a section, and not of type {}",
                self.prefix,
                value.get_ref().type_str()
            );
            self.source.problem(at, what, format!("write `[{}{key}]` on a line", self.prefix));
        }
        self.below(key, table, found.map_or(self.at, |(at, _)| at))
    }

    /// The tables of an array of tables; `None` where the key is absent or wrong.
    pub(super) fn sections(&mut self, key: &'static str, most: usize) -> Option<Vec<Self>> {
        let (at, value) = self.find(key)?;
        let example = format!("write `[[{}{key}]]` once for each", self.prefix);
        let Some(entries) = value.get_ref().as_array() else {
            let what = format!(
                "`{}{key}` is a list of sections, and not of type {}",
                self.prefix,
                value.get_ref().type_str()
            );
            self.source.problem(at, what, example);
            return None;
        };
        if entries.len() > most {
            let what = format!("`{}{key}` has {} entries", self.prefix, entries.len());
            self.source.problem(at, what, format!("at most {most} are allowed"));
            return None;
        }
        let mut sections = Vec::with_capacity(entries.len());
        for entry in entries {
            if let Some(table) = entry.get_ref().as_table() {
                sections.push(self.below(key, Some(table), entry.span().start));
            } else {
                let what = format!(
                    "`{}{key}` holds a value of type {} where a section belongs",
                    self.prefix,
                    entry.get_ref().type_str()
                );
                self.source.problem(entry.span().start, what, example.clone());
            }
        }
        Some(sections)
    }

    /// Whether the key is there, with whatever value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.lookup(key).is_some()
    }

    /// Reports what is wrong with the table as a whole.
    pub(super) fn refuse(&self, what: impl Into<String>, remedy: &str) {
        self.source.problem(self.at, what.into(), remedy.to_owned());
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        for (key, _) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let name: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
            let what = format!("unknown key `{}{name}`", self.prefix);
            self.source.problem(key.span().start, what, did_you_mean(&name, &self.known));
        }
    }

    fn below(&self, key: &str, table: Option<&'s DeTable<'t>>, at: usize) -> Self {
        let prefix = format!("{}{key}.", self.prefix);
        Section { source: self.source, prefix, table, at, known: Vec::new() }
    }

    fn find(&mut self, key: &'static str) -> Option<(usize, &'s Spanned<DeValue<'t>>)> {
        self.known.push(key);
        self.source.keys.borrow_mut().push(format!("{}{key}", self.prefix));
        self.lookup(key)
    }

    fn lookup(&self, key: &str) -> Option<(usize, &'s Spanned<DeValue<'t>>)> {
        let (key, value) = self.table?.iter().find(|(name, _)| name.get_ref() == key)?;
        Some((key.span().start, value))
    }
}

fn did_you_mean(name: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|key| (distance(name, key), *key)).min();
    match nearest {
        Some((steps, key)) if steps <= 1 + key.chars().count() / 3 => {
            format!("did you mean `{key}`?")
        }
        _ => format!("known here: {}", known.join(", ")),
    }
}

/// Levenshtein's distance: insertions, deletions and substitutions.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&right) {
            let here = (diagonal + usize::from(a != *b)).min(before + 1).min(*cell + 1);
            diagonal = *cell;
            before = here;
            *cell = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_edits() {
        for (left, right, expected) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("observation", "observations", 1),
            ("kitten", "sitting", 3),
            ("", "abc", 3),
            ("abc", "", 3),
        ] {
            assert_eq!(distance(left, right), expected, "{left:?} {right:?}");
        }
    }

    #[test]
    fn a_far_key_gets_the_list_instead_of_a_guess() {
        assert_eq!(did_you_mean("banana", &["listen", "keep"]), "known here: listen, keep");
        assert_eq!(did_you_mean("listne", &["listen", "keep"]), "did you mean `listen`?");
    }
}
