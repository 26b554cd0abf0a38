//! The values that were given by flag and by environment, and how each kind of value is read.
//!
//! Every error names its setting. None repeats the value, which may be a secret.

use std::{
    collections::HashMap, env::VarError, fmt::Display, fs, ops::RangeInclusive, str::FromStr, time::Duration,
};

use super::settings::{RESERVED, SETTINGS};

/// Bounds of every interval and timeout.
const DURATIONS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);
/// The shortest time that anything is kept.
const MIN_AGE: Duration = Duration::from_secs(1);

/// A setting that stops the start, and the reason.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct Invalid {
    name: String,
    reason: String,
}

impl Invalid {
    /// Names the setting and what is wrong with it.
    pub fn new(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { name: name.into(), reason: reason.into() }
    }
}

/// All values that were given; an empty one counts as not given.
pub struct Source(HashMap<String, Given>);

/// A value that was given.
pub struct Given {
    /// The value as it came.
    pub text: String,
    /// Whether it is on the command line, which every process of the machine can read.
    pub is_flag: bool,
}

impl Source {
    /// Reads every setting and its `…_FILE`. A flag goes before the environment.
    ///
    /// # Errors
    /// A value that is not UTF-8, or a reserved setting.
    pub fn read(
        flag: impl Fn(&str) -> Option<String>,
        variable: impl Fn(&str) -> Result<String, VarError>,
    ) -> Result<Self, Invalid> {
        let mut values = HashMap::new();
        let names = SETTINGS.iter().map(|setting| setting.name).chain(RESERVED);
        for name in names.flat_map(|name| [name.to_owned(), file_setting(name)]) {
            let (is_flag, text) = match (flag(&name), variable(&name)) {
                (Some(text), _) => (true, text),
                (None, Ok(text)) => (false, text),
                (None, Err(VarError::NotPresent)) => continue,
                (None, Err(VarError::NotUnicode(_))) => return Err(Invalid::new(name, "is not UTF-8")),
            };
            if !text.trim().is_empty() {
                values.insert(name, Given { text, is_flag });
            }
        }
        let is_given = |name: &&str| values.contains_key(*name) || values.contains_key(&file_setting(name));
        if let Some(name) = RESERVED.into_iter().find(is_given) {
            let reason = "is set, but this version cannot do that yet; unset it to start";
            return Err(Invalid::new(name, reason));
        }
        Ok(Self(values))
    }

    /// Returns a value as it was given.
    pub fn given(&self, name: &str) -> Option<&Given> {
        self.0.get(name)
    }

    /// Returns a value without white space around it, or its default, which may be empty.
    pub fn text(&self, name: &str) -> &str {
        self.given(name).map_or_else(|| default(name), |given| given.text.trim())
    }

    /// Reads a value by `parse`; `expected` says in the error what it must be.
    pub fn parse<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Invalid> {
        parse(self.text(name)).ok_or_else(|| Invalid::new(name, format!("must be {expected}")))
    }

    /// Reads a number within a range; `kind` names it in the error.
    pub fn number<T>(&self, name: &str, kind: &str, range: &RangeInclusive<T>) -> Result<T, Invalid>
    where
        T: FromStr + PartialOrd + Display,
    {
        let expected = format!("{kind} from {} to {}", range.start(), range.end());
        self.parse(name, &expected, |text| text.parse().ok().filter(|number| range.contains(number)))
    }

    /// Reads an interval or a timeout.
    pub fn duration(&self, name: &str) -> Result<Duration, Invalid> {
        self.parse(name, "a time from 10ms to 1h, such as 25s", |text| {
            humantime::parse_duration(text).ok().filter(|time| DURATIONS.contains(time))
        })
    }

    /// Reads the time for which something is kept.
    pub fn age(&self, name: &str, expected: &str) -> Result<Duration, Invalid> {
        self.parse(name, expected, |text| humantime::parse_duration(text).ok().filter(|age| *age >= MIN_AGE))
    }

    /// Reads `true` or `false`; without a value it is `false`.
    pub fn boolean(&self, name: &str) -> Result<bool, Invalid> {
        self.choice(name, "true or false", &[("true", true), ("false", false), ("", false)])
    }

    /// Reads one of a few words; `expected` names them in the error.
    pub fn choice<T: Copy>(&self, name: &str, expected: &str, words: &[(&str, T)]) -> Result<T, Invalid> {
        self.parse(name, expected, |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
        })
    }

    /// Reads a list whose items are separated by commas; `item` says of a bad one what is wrong with it.
    pub fn list<T>(&self, name: &str, item: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Invalid> {
        let items = self.text(name).split(',').map(str::trim).filter(|text| !text.is_empty());
        items.map(|text| item(text).map_err(|reason| Invalid::new(name, reason))).collect()
    }

    /// Reads a value that may also be in the file that `…_FILE` names. `None`: neither is given.
    pub fn value_or_file(&self, name: &str) -> Result<Option<(String, bool)>, Invalid> {
        let file = file_setting(name);
        match (self.given(name), self.given(&file)) {
            (Some(_), Some(_)) => Err(Invalid::new(file, format!("is set beside {name}; set one of them"))),
            (Some(given), None) => Ok(Some((given.text.clone(), given.is_flag))),
            (None, Some(_)) => Ok(self.file(&file)?.map(|text| (text, false))),
            (None, None) => Ok(None),
        }
    }

    /// Reads the file that a setting names, without the byte order mark that Windows editors write before it.
    pub fn file(&self, name: &str) -> Result<Option<String>, Invalid> {
        let Some(path) = self.given(name) else { return Ok(None) };
        let text = fs::read_to_string(&path.text).map_err(|error| Invalid::new(name, error.to_string()))?;
        Ok(Some(text.trim_start_matches('\u{feff}').to_owned()))
    }
}

fn file_setting(name: &str) -> String {
    format!("{name}_FILE")
}

fn default(name: &str) -> &'static str {
    let setting = SETTINGS.iter().find(|setting| setting.name == name);
    setting.expect("only settings of the table are read").default
}
