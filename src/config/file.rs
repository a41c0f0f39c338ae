//! The TOML file, read by the table: a key that the table does not have is an error that names its line.
//!
//! Owns: the mapping from TOML to texts. Must never: judge a value beyond its TOML type. Driven by `sources`.

use std::fs;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Hint, Origin};
use super::nearest::nearest;
use super::sources::Written;
use super::table::{Kind, SETTINGS, SettingId};

/// Reads a file: what it sets, in no particular order.
pub fn read(path: &Path) -> Result<Vec<(SettingId, Written)>, ConfigError> {
    let source =
        fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(path, &source)
}

/// Reads the text of a file; `path` is for messages.
pub(super) fn parse(path: &Path, source: &str) -> Result<Vec<(SettingId, Written)>, ConfigError> {
    let document = DeTable::parse(source).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(source, error.span().unwrap_or_default()),
        message: error.message().replace('\n', ", "),
    })?;
    let mut reader = Reader { path, source, found: Vec::new() };
    reader.table("", document.get_ref())?;
    Ok(reader.found)
}

struct Reader<'a> {
    path: &'a Path,
    source: &'a str,
    found: Vec<(SettingId, Written)>,
}

impl Reader<'_> {
    /// Takes a table whose keys stand under `prefix`. The nesting of what is accepted is the table's, so this recursion is
    /// as deep as the longest known place.
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
        for (name, value) in table {
            let place = if prefix.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{prefix}.{}", name.get_ref())
            };
            let line = line_of(self.source, name.span());
            let below = format!("{place}.");
            if SETTINGS.iter().any(|row| row.toml.starts_with(&below)) {
                match value.get_ref() {
                    DeValue::Table(table) => self.table(&place, table)?,
                    _ => return Err(self.wrong_type(line, &place, "a table")),
                }
            } else {
                self.value(&place, line, value.get_ref())?;
            }
        }
        Ok(())
    }

    fn value(&mut self, place: &str, line: usize, value: &DeValue<'_>) -> Result<(), ConfigError> {
        let Some(row) = SETTINGS.iter().find(|row| !row.toml.is_empty() && row.toml == place) else {
            let known = SETTINGS.iter().map(|row| row.toml);
            // A flag's name at the top level is the likeliest mistake: say where it belongs.
            let by_flag = SETTINGS.iter().find(|row| row.flag == place || row.etcd == Some(place));
            let hint =
                by_flag.map(|row| row.toml).filter(|toml| !toml.is_empty()).or_else(|| nearest(place, known));
            return Err(ConfigError::UnknownKey {
                path: self.path.to_owned(),
                line,
                key: place.to_owned(),
                hint: Hint(hint.map(str::to_owned)),
            });
        };
        let (text, expected) = match row.kind {
            Kind::Text => (string(value).or_else(|| integer(value)), "a string"),
            Kind::Path | Kind::Choice(_) => (string(value), "a string"),
            Kind::Bool => (value.as_bool().map(|on| on.to_string()), "true or false"),
            Kind::Number => (integer(value), "a whole number"),
            Kind::List => (string(value).or_else(|| joined(value)), "an array of strings without commas"),
        };
        let text = text.ok_or_else(|| self.wrong_type(line, place, expected))?;
        let origin = Origin::File { path: self.path.to_owned(), line, key: row.toml };
        self.found.push((row.key, Written { text, origin }));
        Ok(())
    }

    fn wrong_type(&self, line: usize, place: &str, expected: &'static str) -> ConfigError {
        ConfigError::WrongType { path: self.path.to_owned(), line, key: place.to_owned(), expected }
    }
}

fn string(value: &DeValue<'_>) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn integer(value: &DeValue<'_>) -> Option<String> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|number| number.to_string())
}

/// A list as it is written after a flag. There a comma parts two items, so that none may have one in it.
fn joined(value: &DeValue<'_>) -> Option<String> {
    let parts: Option<Vec<&str>> = value.as_array()?.iter().map(|part| part.get_ref().as_str()).collect();
    let parts = parts?;
    (!parts.iter().any(|part| part.contains(','))).then(|| parts.join(","))
}

/// The line, from 1, on which a span begins.
fn line_of(source: &str, span: Range<usize>) -> usize {
    source.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count() + 1
}
