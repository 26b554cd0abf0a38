//! The house stands: no import points up, and no framework is met outside its room.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The floors, lowest first; modules of one floor do not know each other.
/// A module imports only from lower floors and from itself.
const FLOORS: &[&[&str]] = &[
    &["net", "telemetry", "metrics"],
    &["supervise", "heavy"],
    &["domain"],
    &["config"],
    &["storage"],
    &["service"],
    &["gateway", "http"],
    &["server"],
];

/// Modules that everything else may stand on but that must not know what georoom is about.
const INFRASTRUCTURE: &[&str] = &["net", "telemetry", "metrics", "supervise", "heavy"];

/// Crates and the modules that may name them.
const FRAMEWORKS: &[(&[&str], &[&str])] = &[
    (&["sea_orm", "sqlx", "sea_query", "wkb", "geo_traits"], &["storage"]),
    (&["sea_orm_migration", "migrations"], &["storage"]),
    (&["warp"], &["http"]),
    (&["socketioxide", "socketioxide_core"], &["gateway"]),
    (&["hyper_util"], &["net"]),
    (&["jsonwebtoken"], &["domain"]),
    (&["prometheus_client", "procfs"], &["metrics"]),
    (&["tokio"], &["net", "supervise", "heavy", "storage", "service", "gateway", "http", "server", "main"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source file with its module on the ground plan: (`storage`, path, code without comments).
fn modules() -> Vec<(String, PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    files
        .into_iter()
        .map(|path| {
            let first = path.strip_prefix(&src).expect("below src").components().next().expect("a name");
            let module = first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).expect("text");
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>();
            (module, path, code.join("\n"))
        })
        .collect()
}

fn floor(module: &str) -> usize {
    FLOORS
        .iter()
        .position(|floor| floor.contains(&module))
        .unwrap_or_else(|| panic!("`{module}` stands on no floor: give it one in tests/layering.rs"))
}

/// Names that follow `crate::`, singly or in a list.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            continue;
        };
        let (mut depth, mut name, mut at_start) = (0, String::new(), true);
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => at_start = true,
                c if depth == 0 && at_start && (c.is_alphanumeric() || c == '_') => name.push(c),
                _ if !name.is_empty() => {
                    found.push(std::mem::take(&mut name));
                    at_start = false;
                }
                _ => {}
            }
        }
        found.extend(Some(name).filter(|name| !name.is_empty()));
    }
    found
}

#[test]
fn no_import_points_up() {
    for (module, path, code) in modules() {
        if ["main", "lib"].contains(&module.as_str()) {
            continue;
        }
        for import in imports(&code) {
            let allowed = import == module || floor(&import) < floor(&module);
            assert!(allowed, "{}: {module} imports {import}", path.display());
        }
    }
}

#[test]
fn infrastructure_knows_nothing_of_locations() {
    for (module, path, code) in modules() {
        if INFRASTRUCTURE.contains(&module.as_str()) {
            for import in imports(&code) {
                let allowed = INFRASTRUCTURE.contains(&import.as_str());
                assert!(allowed, "{}: {module} imports {import}", path.display());
            }
        }
    }
}

#[test]
fn frameworks_stay_in_their_rooms() {
    for (module, path, code) in modules() {
        for (crates, rooms) in FRAMEWORKS {
            for name in *crates {
                let named = code.match_indices(&format!("{name}::")).any(|(at, _)| {
                    let before = code[..at].chars().next_back();
                    !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
                });
                let allowed = rooms.contains(&module.as_str());
                assert!(!named || allowed, "{}: {name} outside {rooms:?}", path.display());
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (_, path, _) in modules() {
        let text = fs::read_to_string(&path).expect("text");
        assert!(text.starts_with("//!"), "{} does not open with //!", path.display());
    }
}

#[test]
fn the_checks_see_what_they_look_for() {
    let code = "use crate::{\n    domain::{error::Error, id},\n    service::Service,\n};\nuse crate::config;\ncrate::net::x();";
    assert_eq!(imports(code), ["domain", "service", "config", "net"]);
    let domain = modules().into_iter().filter(|(module, ..)| module == "domain").count();
    assert!(domain >= 8, "{domain} files of the domain were read");
}
