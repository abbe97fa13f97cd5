//! The sources of settings, applied one over the other. Each value keeps its origin for error
//! messages.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::error::{ConfigError, InvalidValue};

/// The default of every setting. Which keys exist, and of which type, follows from it.
pub(super) const DEFAULTS: &str = include_str!("../../config.toml");

/// What the names of environment variables start with.
pub(super) const PREFIX: &str = "SIMUSAGE_";

/// The settings, by section and key, whose values are not shown in errors.
const SECRETS: [(&str, &str); 3] = [
    ("database", "url"),
    ("kafka", "sasl_password"),
    ("kafka", "ssl_key_password"),
];

/// The settings of all sources applied so far.
pub(super) struct Layers {
    values: Table,
    /// Where each value came from, by `section.key`. Defaults are not in it.
    origins: BTreeMap<String, String>,
}

impl Layers {
    pub fn defaults() -> Self {
        let values = DEFAULTS.parse().expect("the built-in config.toml is TOML");
        Self {
            values,
            origins: BTreeMap::new(),
        }
    }

    pub fn set(&mut self, section: &str, key: &str, value: Value, origin: &str) {
        if let Some(Value::Table(table)) = self.values.get_mut(section) {
            table.insert(key.to_owned(), value);
            self.origins
                .insert(format!("{section}.{key}"), origin.to_owned());
        }
    }

    pub fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            file: file.clone(),
            error,
        })?;
        let table: Table = text
            .parse()
            .map_err(|error| ConfigError::not_toml(file.clone(), &text, &error))?;
        for (section, keys) in table {
            let Value::Table(keys) = keys else {
                return Err(self.unknown_section(&file, section));
            };
            if !self.values.contains_key(&section) {
                return Err(self.unknown_section(&file, format!("[{section}]")));
            }
            for (key, value) in keys {
                if self.default_of(&section, &key).is_none() {
                    return Err(self.unknown_key(&file, &section, &key));
                }
                if SECRETS.contains(&(&*section, &*key)) && !value.is_str() {
                    // The general error would show the value.
                    return Err(ConfigError::Invalid {
                        origin: file,
                        key: format!("{section}.{key}"),
                        problem: "the value is not text; write it in quotes".to_owned(),
                    });
                }
                self.set(&section, &key, value, &file);
            }
        }
        Ok(())
    }

    pub fn add_environment(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        let mut environment: Vec<_> = environment.into_iter().collect();
        // DATABASE_URL sorts before SIMUSAGE_DATABASE_URL, which is more specific and so wins.
        environment.sort();
        for (name, text) in environment {
            if name == "DATABASE_URL" {
                self.set("database", "url", Value::String(text), &name);
                continue;
            }
            let Some(path) = name.strip_prefix(PREFIX).map(str::to_lowercase) else {
                continue;
            };
            // SIMUSAGE_LOG, for example, is not a setting. A misspelt key is only detected within
            // an existing section.
            let Some((section, key)) = path
                .split_once('_')
                .filter(|(section, _)| self.values.contains_key(*section))
            else {
                continue;
            };
            let value = match self.default_of(section, key) {
                None => return Err(self.unknown_key(&name, section, key)),
                Some(Value::Integer(default)) => text
                    .replace('_', "")
                    .parse()
                    .map(Value::Integer)
                    .map_err(|_| ConfigError::Invalid {
                        origin: name.clone(),
                        key: format!("{section}.{key}"),
                        problem: format!("'{text}' is not a whole number (default: {default})"),
                    })?,
                Some(_) => Value::String(text),
            };
            self.set(section, key, value, &name);
        }
        Ok(())
    }

    /// Adds libpq's environment variables to the database's URL, which they complete.
    pub fn complete_url(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        let url = self
            .values
            .get_mut("database")
            .and_then(|section| section.get_mut("url"));
        if let Some(Value::String(text)) = url {
            let text = std::mem::take(text);
            let environment: Table = environment
                .into_iter()
                .map(|(name, value)| (name, Value::String(value)))
                .collect();
            let completed = [
                ("text".to_owned(), Value::String(text)),
                ("environment".to_owned(), Value::Table(environment)),
            ];
            self.values["database"]["url"] = Value::Table(completed.into_iter().collect());
        }
    }

    pub fn into_values(self) -> (Table, Origins) {
        (self.values, Origins(self.origins))
    }

    /// The value so far, which is of the same type as the default.
    fn default_of(&self, section: &str, key: &str) -> Option<&Value> {
        self.values.get(section)?.as_table()?.get(key)
    }

    fn unknown_section(&self, origin: &str, key: String) -> ConfigError {
        let sections: Vec<_> = self.values.keys().map(|name| format!("[{name}]")).collect();
        ConfigError::UnknownKey {
            origin: origin.to_owned(),
            key,
            available: format!("the sections are {}", sections.join(", ")),
        }
    }

    fn unknown_key(&self, origin: &str, section: &str, key: &str) -> ConfigError {
        let keys: Vec<_> = self.values[section]
            .as_table()
            .into_iter()
            .flat_map(Table::keys)
            .map(String::as_str)
            .collect();
        ConfigError::UnknownKey {
            origin: origin.to_owned(),
            key: format!("{section}.{key}"),
            available: format!("[{section}] has {}", keys.join(", ")),
        }
    }
}

/// Where each value came from, by `section.key`.
pub(super) struct Origins(BTreeMap<String, String>);

impl Origins {
    /// The error for a value, by `section.key`.
    pub fn invalid(&self, key: String, problem: String) -> ConfigError {
        let origin = self
            .0
            .get(&key)
            .map_or("default", String::as_str)
            .to_owned();
        ConfigError::Invalid {
            origin,
            key,
            problem,
        }
    }

    /// The error for a value that its section does not accept.
    pub fn invalid_in(&self, section: &str, invalid: InvalidValue) -> ConfigError {
        self.invalid(format!("{section}.{}", invalid.key), invalid.problem)
    }
}
