//! Refuses every dependency between Shoal's packages that the architecture does not name, and everything in the core
//! that could do IO, keep time or run threads.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, TargetKind};

/// Which package may depend on which; ARCHITECTURE.md says why.
const ARROWS: [(&str, &[&str]); 8] = [
    ("shoal-core", &[]),
    ("shoal-wire", &["shoal-core"]),
    ("shoal-net", &["shoal-wire", "shoal-core"]),
    ("shoal-actors", &["shoal-net", "shoal-wire", "shoal-core"]),
    ("shoal-runtime-docker", &["shoal-core"]),
    ("shoal-runtime-process", &["shoal-core"]),
    ("shoal-sim", &["shoal-actors", "shoal-net", "shoal-wire", "shoal-core"]),
    (
        "shoal",
        &[
            "shoal-actors",
            "shoal-net",
            "shoal-wire",
            "shoal-core",
            "shoal-runtime-docker",
            "shoal-runtime-process",
        ],
    ),
];

/// The package of the end-to-end tests may depend on any other.
const ANYTHING: &str = "shoal-tests";

/// What the core may use of the world, for its library. Whatever is added must be free of IO, time and threads.
const CORE_MAY_USE: [&str; 5] = ["imbl", "ipnet", "rand", "serde", "thiserror"];

/// What the core must not reach even through others.
const CORE_MUST_NOT_REACH: [&str; 12] = [
    "actix",
    "actix-rt",
    "async-std",
    "bollard",
    "chitchat",
    "hyper",
    "openraft",
    "quinn",
    "redb",
    "rustls",
    "time",
    "tokio",
];

/// Packages and what each depends on.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Every arrow between packages of the graph that is not named.
fn unnamed_arrows(graph: &Graph) -> Vec<String> {
    let named: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let mut found = Vec::new();
    for (package, dependencies) in graph.iter().filter(|(package, _)| *package != ANYTHING) {
        let Some(may) = named.get(package.as_str()) else {
            found.push(format!("{package} is a package that the architecture does not name"));
            continue;
        };
        for dependency in dependencies.iter().filter(|d| graph.contains_key(*d) && !may.contains(&d.as_str()))
        {
            found.push(format!("{package} -> {dependency}"));
        }
    }
    found
}

/// Everything that is reached from a package.
fn reached(graph: &Graph, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(package) = open.pop() {
        for next in graph.get(&package).into_iter().flatten() {
            if seen.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    seen
}

fn metadata() -> Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    // The lock file alone decides; what other platforms need is not looked for, as nobody has it here.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let options = ["--locked".to_owned(), "--filter-platform".to_owned(), platform];
    MetadataCommand::new().manifest_path(manifest).other_options(options).exec().expect("cargo metadata")
}

/// The workspace as declared; dependencies for tests and builds count too.
fn workspace(metadata: &Metadata) -> Graph {
    let packages = metadata.workspace_packages().into_iter();
    packages.map(|p| (p.name.to_string(), p.dependencies.iter().map(|d| d.name.clone()).collect())).collect()
}

/// What is linked into libraries, as resolved: no macros, which run in the compiler, and nothing for tests.
fn linked(metadata: &Metadata) -> Graph {
    let is_macro =
        |p: &cargo_metadata::Package| p.targets.iter().any(|t| t.kind.contains(&TargetKind::ProcMacro));
    let names: BTreeMap<_, _> = metadata
        .packages
        .iter()
        .filter(|p| !is_macro(p))
        .map(|p| (p.id.clone(), p.name.to_string()))
        .collect();
    let mut graph = Graph::new();
    for node in metadata.resolve.iter().flat_map(|resolve| &resolve.nodes) {
        let Some(name) = names.get(&node.id) else { continue };
        let links =
            node.deps.iter().filter(|dep| dep.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal));
        let links = links.filter_map(|dep| names.get(&dep.pkg).cloned());
        graph.entry(name.clone()).or_default().extend(links);
    }
    graph
}

#[test]
fn only_the_named_arrows_are_there() {
    let found = unnamed_arrows(&workspace(&metadata()));
    assert!(found.is_empty(), "dependencies that ARCHITECTURE.md does not name: {found:#?}");
}

#[test]
fn every_named_package_is_there() {
    let workspace = workspace(&metadata());
    for (package, _) in ARROWS {
        assert!(workspace.contains_key(package), "{package} is named and does not exist");
    }
}

#[test]
fn the_core_uses_nothing_that_could_do_io_or_keep_time() {
    let metadata = metadata();
    let core = metadata.workspace_packages().into_iter().find(|p| p.name == "shoal-core").expect("core");
    for dependency in core.dependencies.iter().filter(|d| d.kind != DependencyKind::Development) {
        let name = dependency.name.as_str();
        assert!(CORE_MAY_USE.contains(&name), "shoal-core depends on {name}: decisions must stay pure");
    }
    let reached = reached(&linked(&metadata), "shoal-core");
    assert!(reached.contains("imbl"), "the graph of linked packages lacks what is surely there");
    for forbidden in CORE_MUST_NOT_REACH {
        assert!(!reached.contains(forbidden), "shoal-core reaches {forbidden}");
    }
}

fn forged(package: &str, dependency: &str) -> Vec<String> {
    let mut graph = workspace(&metadata());
    graph.entry(package.to_owned()).or_default().insert(dependency.to_owned());
    unnamed_arrows(&graph)
}

#[test]
fn a_forged_arrow_is_refused_by_name() {
    for (package, dependency) in [
        ("shoal-core", "shoal-wire"),
        ("shoal-wire", "shoal-net"),
        ("shoal-runtime-docker", "shoal-net"),
        ("shoal-actors", "shoal-runtime-docker"),
        ("shoal", "shoal-sim"),
        ("shoal-sim", "shoal"),
    ] {
        assert_eq!(forged(package, dependency), [format!("{package} -> {dependency}")]);
    }
}

#[test]
fn an_unnamed_package_is_refused() {
    let words = "shoal-extra is a package that the architecture does not name";
    assert_eq!(forged("shoal-extra", "serde"), [words]);
}

#[test]
fn what_is_reached_through_others_counts() {
    let graph = Graph::from([
        ("a".into(), BTreeSet::from(["b".into()])),
        ("b".into(), BTreeSet::from(["tokio".into(), "a".into()])),
    ]);
    assert!(reached(&graph, "a").contains("tokio"));
}
