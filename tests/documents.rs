//! Documents and deployment files agree with the code: error codes, settings, reasons of disconnects, links.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

use georoom::{
    config::{Config, RESERVED, SETTINGS},
    domain::error::Code,
};
use serde_json::Value;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

#[test]
fn the_protocol_lists_every_code_and_no_other() {
    let protocol = read("docs/protocol.md");
    let table: Vec<_> = protocol
        .lines()
        .skip_while(|line| !line.starts_with("| code | status |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
        .collect();
    let documented: Vec<_> = table.iter().map(|row| (row[1].trim_matches('`'), row[3])).collect();
    let codes: Vec<_> = Code::ALL.iter().map(|code| (code.as_str(), code.meaning())).collect();
    assert_eq!(documented, codes);
}

#[test]
fn the_readme_lists_every_setting_with_its_default() {
    let readme = read("README.md");
    for setting in SETTINGS {
        let documented = readme.lines().any(|line| {
            line.contains(&format!("`{}`", setting.name))
                && (setting.default.is_empty() || line.contains(&format!("`{}`", setting.default)))
        });
        assert!(documented, "{} with `{}`", setting.name, setting.default);
    }
    for name in RESERVED {
        let is_named = readme.contains(&format!("`{name}`"));
        let is_one_of = name.starts_with("ADMIN_UI_") && readme.contains("`ADMIN_UI_…`");
        assert!(is_named || is_one_of, "{name}");
    }
}

#[test]
fn operations_list_every_reason_of_a_disconnect_and_no_other() {
    let operations = read("docs/operations.md");
    let table = operations.lines().skip_while(|line| !line.starts_with("| `reason` |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|'));
    let names =
        rows.filter_map(|line| line.split('|').nth(1)).flat_map(|names| names.split('`').skip(1).step_by(2));
    let documented: BTreeSet<_> = names.collect();
    let code = read("src/gateway/disconnect.rs");
    let (_, code) = code.split_once("fn end_code").expect("the function that names the reasons");
    let logged: BTreeSet<_> = code.split('"').skip(1).step_by(2).collect();
    assert_eq!(documented, logged);
}

/// Every document in Markdown, without those of dependencies.
fn documents() -> Vec<PathBuf> {
    let mut documents = Vec::new();
    for folder in ["", "bench", "docs", "docs/design"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let entries = fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        documents.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    documents
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_between_documents_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).expect("text");
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => document.clone(),
                file => document.parent().expect("a folder").join(file),
            };
            let is_there = match heading {
                "" => file.exists(),
                heading => fs::read_to_string(&file).is_ok_and(|text| {
                    text.lines().any(|line| line.starts_with('#') && anchor(line) == heading)
                }),
            };
            if !is_there {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_file_of_the_code_that_a_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["", "src", "src/gateway", "src/storage"].map(|folder| root.join(folder));
    let mut missing = Vec::new();
    for document in documents().into_iter().chain([root.join("Makefile")]) {
        let text = fs::read_to_string(&document).expect("text");
        let is_of_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | '-');
        let names = text.split(|c| !is_of_path(c)).filter(|name| name.contains('/') && name.ends_with(".rs"));
        for name in names {
            let mut folders = folders.iter().map(PathBuf::as_path).chain(document.parent());
            if !folders.any(|folder| folder.join(name).exists()) {
                missing.push(format!("{}: {name}", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Replaces `${NAME}`, `${NAME:-default}` and `${NAME:?message}` as compose does, inner ones first.
fn substitute(text: &str, environment: &HashMap<&str, &str>) -> Result<String, String> {
    let mut text = text.replace("$$", "\u{0}");
    while let Some(start) = text.rfind("${") {
        let end = start + text[start..].find('}').ok_or("no }")?;
        let inner = &text[start + 2..end];
        let at = inner.find([':']).unwrap_or(inner.len());
        let (name, rest) = inner.split_at(at);
        let value = environment.get(name).filter(|value| !value.is_empty());
        let value = match (value, rest.get(..2)) {
            (Some(value), _) => (*value).to_owned(),
            (None, Some(":-")) => rest[2..].to_owned(),
            (None, Some(":?")) => return Err(name.to_owned()),
            (None, _) => String::new(),
        };
        text.replace_range(start..=end, &value);
    }
    Ok(text.replace('\u{0}', "$"))
}

fn compose(environment: &HashMap<&str, &str>) -> Result<Value, String> {
    let text = read("docker-compose.yml");
    let comments_off: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let text = substitute(&comments_off.join("\n"), environment)?;
    let yaml: serde_norway::Value = serde_norway::from_str(&text).map_err(|e| e.to_string())?;
    serde_json::to_value(yaml).map_err(|e| e.to_string())
}

/// Returns the settings with which compose starts georoom.
fn starts(environment: &HashMap<&str, &str>) -> Config {
    let compose = compose(environment).expect("parses");
    let environment = compose["services"]["georoom"]["environment"].as_object().expect("an environment");
    for name in environment.keys() {
        assert!(SETTINGS.iter().any(|setting| setting.name == name), "{name} is no setting");
    }
    // A value that is empty after the substitution is passed as an empty string.
    let value = |name: &str| Some(environment.get(name)?.as_str().unwrap_or_default().to_owned());
    let config = Config::from_variables(value);
    config.expect("settings the server takes")
}

#[test]
fn compose_refuses_to_start_without_passwords() {
    let example = read(".env.example");
    let unchanged: HashMap<_, _> = example
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .collect();
    assert!(unchanged.contains_key("MYSQL_PASSWORD"));
    assert!(compose(&unchanged).is_err(), "the example as it is");
    assert!(compose(&HashMap::from([("MYSQL_PASSWORD", "a")])).is_err(), "one of two");
}

#[test]
fn compose_publishes_nginx_alone_and_starts_georoom_with_settings_it_takes() {
    let mut filled = HashMap::from([("MYSQL_PASSWORD", "aaa"), ("MYSQL_ROOT_PASSWORD", "bbb")]);
    assert!(starts(&filled).auth.keys.is_none(), "open");
    filled.extend([("JWT_SECRET", "0123456789abcdef0123456789abcdef"), ("OPEN_MODE", "false")]);
    let config = starts(&filled);
    assert!(config.auth.keys.is_some(), "with a key");

    let compose = compose(&filled).expect("parses");
    let services = compose["services"].as_object().expect("services");
    for (name, service) in services {
        assert!(service["healthcheck"]["test"].is_array(), "{name} has a health check");
        let published = service.get("ports").map(|ports| ports.to_string());
        match name.as_str() {
            "nginx" => assert!(published.unwrap().starts_with("[\"127.0.0.1:")),
            _ => assert_eq!(published, None, "{name}"),
        }
    }
    // nginx's file names exactly these hosts and ports.
    let nginx = read("nginx/georoom.conf");
    assert!(nginx.contains(&format!("server georoom:{};", config.addresses.api.port())));
    assert!(nginx.contains(&format!("server georoom:{};", config.addresses.gateway.port())));
    let mounted = services["nginx"]["volumes"].to_string();
    assert!(mounted.contains("./nginx/georoom.conf:/etc/nginx/conf.d/default.conf:ro"));
    assert!(mounted.contains("./nginx/nginx.conf:/etc/nginx/nginx.conf:ro"));
    // Each connection is a file, and a worker opens some others.
    let outer = read("nginx/nginx.conf");
    let (_, connections) = outer.split_once("worker_connections ").expect("a number of connections");
    let connections: u64 = connections.split(';').next().expect("a number").parse().expect("a number");
    assert!(connections + 100 < services["nginx"]["ulimits"]["nofile"].as_u64().expect("a limit"));
    assert_eq!(compose["x-service"]["logging"]["options"]["mode"], "non-blocking");
    assert!(services.values().all(|service| service["logging"].is_null()), "nobody logs in another way");
}
