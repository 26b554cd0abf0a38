//! Holds the layout of `src/`: floors, no circles between files, frameworks in their rooms, and files of a size to read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::visit::{self, Visit};

/// The floors, lowest first. A module imports only from lower floors and from itself, so modules of one floor do not
/// know each other.
const FLOORS: &[&[&str]] = &[
    &["net", "telemetry", "metrics"],
    &["supervise", "heavy"],
    &["domain"],
    &["config", "budgets"],
    &["storage"],
    &["service"],
    &["gateway", "http"],
    &["server"],
];

/// Modules that every other module may import, and that know nothing of locations.
const INFRASTRUCTURE: &[&str] = &["net", "telemetry", "metrics", "supervise", "heavy"];

/// Crates, and the modules that may name them.
const FRAMEWORKS: &[(&[&str], &[&str])] = &[
    (&["sea_orm", "sqlx", "sea_query", "wkb", "geo_traits"], &["storage"]),
    (&["sea_orm_migration", "migrations"], &["storage"]),
    (&["warp"], &["http"]),
    (&["socketioxide", "socketioxide_core", "socketioxide_parser_common"], &["gateway"]),
    (&["hyper_util"], &["net"]),
    (&["jsonwebtoken"], &["domain"]),
    (&["prometheus_client", "procfs"], &["metrics"]),
    (&["tokio"], &["net", "supervise", "heavy", "storage", "service", "gateway", "http", "server", "main"]),
];

const MAX_FILE_LINES: usize = 400;

/// A path as `a::b::c`, split at its colons.
type Segments = Vec<String>;

/// One file of `src/`.
struct Source {
    file: PathBuf,
    /// Every path that the file names outside its tests, from the crate's root where it begins with `crate`, `self` or
    /// `super`.
    paths: Vec<Segments>,
}

/// Collects the paths of one file, without those of test modules.
struct Paths<'a> {
    /// The module in which the visited item stands.
    module: Segments,
    children: &'a BTreeSet<String>,
    found: Vec<Segments>,
}

impl Paths<'_> {
    fn add(&mut self, path: Segments) {
        let ups = path.iter().take_while(|segment| *segment == "super").count();
        let path = match path[0].as_str() {
            "super" => {
                let above = self.module.len().checked_sub(ups).expect("`super` stays within the crate");
                [vec!["crate".to_owned()], self.module[..above].to_vec(), path[ups..].to_vec()].concat()
            }
            "self" => [vec!["crate".to_owned()], self.module.clone(), path[1..].to_vec()].concat(),
            name if self.children.contains(name) => {
                [vec!["crate".to_owned()], self.module.clone(), path].concat()
            }
            _ => path,
        };
        self.found.push(path);
    }

    fn add_tree(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let with = |ident: &syn::Ident| [prefix, &[ident.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(with(&name.ident)),
            syn::UseTree::Rename(rename) => self.add(with(&rename.ident)),
            syn::UseTree::Glob(_) => self.add(prefix.to_vec()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(prefix, tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    /// The path of `pub(super)` is no import.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_for_tests(item) {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }
}

fn is_for_tests(item: &syn::ItemMod) -> bool {
    item.attrs.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn list_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            list_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The module that a file holds: `src/gateway/wire/mod.rs` is `gateway`, `wire`.
fn module_of(file: &Path) -> Segments {
    let path = file.strip_prefix(src()).expect("a file of src").with_extension("");
    let mut module: Segments = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|name| name == "mod") {
        module.pop();
    }
    module
}

/// Every file of `src/` by its module, without the files that only tests are made of.
fn sources() -> BTreeMap<Segments, Source> {
    let mut files = Vec::new();
    list_files(&src(), &mut files);
    let parsed = files.into_iter().map(|file| {
        let text = fs::read_to_string(&file).expect("text");
        let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        (module_of(&file), file, syntax)
    });
    let parsed: Vec<_> = parsed.collect();
    let modules = |syntax: &syn::File, tests: bool| -> Vec<String> {
        let items = syntax.items.iter().filter_map(|item| match item {
            syn::Item::Mod(item) if is_for_tests(item) == tests => Some(item.ident.to_string()),
            _ => None,
        });
        items.collect()
    };
    let of_tests: BTreeSet<Segments> = parsed
        .iter()
        .flat_map(|(module, .., syntax)| {
            modules(syntax, true).into_iter().map(|child| [module.clone(), vec![child]].concat())
        })
        .collect();
    let is_of_tests = |module: &Segments| (1..=module.len()).any(|len| of_tests.contains(&module[..len]));
    parsed
        .iter()
        .filter(|(module, ..)| !is_of_tests(module))
        .map(|(module, file, syntax)| {
            let children = modules(syntax, false).into_iter().collect();
            let mut paths = Paths { module: module.clone(), children: &children, found: Vec::new() };
            paths.visit_file(syntax);
            (module.clone(), Source { file: file.clone(), paths: paths.found })
        })
        .collect()
}

/// The modules at the top of the crate that a file imports from.
fn floors_named(source: &Source) -> impl Iterator<Item = &String> {
    source.paths.iter().filter(|path| path[0] == "crate").filter_map(|path| path.get(1))
}

fn floor(module: &str) -> usize {
    FLOORS
        .iter()
        .position(|floor| floor.contains(&module))
        .unwrap_or_else(|| panic!("`{module}` stands on no floor: give it one in tests/layering.rs"))
}

/// The files that each file imports from: the longest beginning of a path that is a module.
fn imports(sources: &BTreeMap<Segments, Source>) -> BTreeMap<&Segments, BTreeSet<&Segments>> {
    let module_in = |path: &Segments| {
        let path = path.strip_prefix(&["crate".to_owned()])?;
        let (module, _) = (1..=path.len()).rev().find_map(|len| sources.get_key_value(&path[..len]))?;
        Some(module)
    };
    let found = sources.iter().map(|(module, source)| {
        let imported = source.paths.iter().filter_map(module_in).filter(|imported| *imported != module);
        (module, imported.collect())
    });
    found.collect()
}

/// The imports that are part of a circle: those from whose target the importing file is reached again.
fn circular<'a>(
    imports: &BTreeMap<&'a Segments, BTreeSet<&'a Segments>>,
) -> Vec<(&'a Segments, &'a Segments)> {
    let reaches = |from: &'a Segments, to: &'a Segments| {
        let (mut seen, mut next) = (BTreeSet::from([from]), vec![from]);
        while let Some(module) = next.pop() {
            next.extend(imports[module].iter().copied().filter(|module| seen.insert(module)));
        }
        seen.contains(to)
    };
    let all = imports.iter().flat_map(|(module, imported)| imported.iter().map(|target| (*module, *target)));
    all.filter(|(module, target)| reaches(target, module)).collect()
}

#[test]
fn no_import_points_up() {
    for (module, source) in sources() {
        if ["main", "lib"].contains(&module[0].as_str()) {
            continue;
        }
        for imported in floors_named(&source) {
            let allowed = *imported == module[0] || floor(imported) < floor(&module[0]);
            assert!(allowed, "{}: {} imports {imported}", source.file.display(), module[0]);
        }
    }
}

#[test]
fn infrastructure_knows_nothing_of_locations() {
    for (module, source) in sources() {
        if INFRASTRUCTURE.contains(&module[0].as_str()) {
            for imported in floors_named(&source) {
                let allowed = INFRASTRUCTURE.contains(&imported.as_str());
                assert!(allowed, "{}: {} imports {imported}", source.file.display(), module[0]);
            }
        }
    }
}

#[test]
fn frameworks_stay_in_their_rooms() {
    for (module, source) in sources() {
        for (crates, rooms) in FRAMEWORKS {
            let named = source.paths.iter().find(|path| crates.contains(&path[0].as_str()));
            let allowed = rooms.contains(&module[0].as_str());
            assert!(named.is_none() || allowed, "{}: {named:?} outside {rooms:?}", source.file.display());
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let sources = sources();
    let circular = circular(&imports(&sources));
    let line = |(module, target): &(&Segments, &Segments)| {
        format!("{} imports {}", module.join("::"), target.join("::"))
    };
    let lines: Vec<_> = circular.iter().map(line).collect();
    assert!(lines.is_empty(), "these imports form circles:\n{}", lines.join("\n"));
}

#[test]
fn files_say_what_they_are_and_can_be_read_at_a_sitting() {
    let mut files = Vec::new();
    list_files(&src(), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).expect("text");
        assert!(text.starts_with("//!"), "{} does not open with //!", file.display());
        let lines = text.lines().count();
        assert!(lines <= MAX_FILE_LINES, "{} has {lines} lines: make it two files", file.display());
    }
}

#[test]
fn the_checks_see_what_they_look_for() {
    let code = "
        use super::{error::Error as Failure, id};
        use crate::service::Service;
        use child::Thing;
        fn f() { crate::net::x(); sea_orm::y::<super::Z>() }
        mod inner { use super::super::up; }
        #[cfg(test)]
        mod tests { use crate::server; }";
    let children = BTreeSet::from(["child".to_owned()]);
    let module = ["storage", "write"].map(str::to_owned).to_vec();
    let mut paths = Paths { module, children: &children, found: Vec::new() };
    paths.visit_file(&syn::parse_file(code).expect("code"));
    let found: BTreeSet<_> = paths.found.iter().map(|path| path.join("::")).collect();
    let expected = [
        "crate::storage::error::Error",
        "crate::storage::id",
        "crate::service::Service",
        "crate::storage::write::child::Thing",
        "crate::net::x",
        "sea_orm::y",
        "crate::storage::Z",
        "crate::storage::up",
    ];
    assert_eq!(found, expected.into_iter().map(str::to_owned).collect());

    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| vec![name.to_owned()]);
    let graph = [(&a, vec![&b]), (&b, vec![&c]), (&c, vec![&b, &d]), (&d, vec![])];
    let graph =
        graph.into_iter().map(|(module, imported)| (module, imported.into_iter().collect())).collect();
    assert_eq!(circular(&graph), [(&b, &c), (&c, &b)]);

    let domain = sources().into_keys().filter(|module| module[0] == "domain").count();
    assert!(domain >= 8, "{domain} files of the domain were read");
}
