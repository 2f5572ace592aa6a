//! The inventory of an issuer that is changed by hand: `pki doctor` finds each table that was emptied.

use std::fs;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use serde_json::Value;
use tests::{Cluster, Mesh, PkiCommands, Reach, free_port};

/// What the finding about an emptied table names; `None` for a table that is not in the audit log.
fn named(table: &str) -> Option<&'static str> {
    match table {
        "settings" => Some("setting \"trust_domain\" is missing"),
        "registrations" => Some("has another state in the table than in the log"),
        "tokens" => Some("token "),
        "certificates" => Some("certificate "),
        "audit" => Some("the audit log does not begin with the creation of the PKI"),
        "denials" => Some("the denial of cluster us-1"),
        "denylists" => Some("the number of the denylist of a root"),
        // What connected gateways have reported. They report again.
        "gateways" => None,
        other => panic!("table {other}: say how it is found that it was emptied"),
    }
}

/// The folder of an issuer whose table is empty.
fn emptied(state: &Path, table: &str, folder: &Path) -> PkiCommands {
    fs::create_dir(folder).expect("a folder");
    let copied = Command::new("cp").arg("-a").arg(state).arg(folder.join("state")).status();
    assert!(copied.expect("cp runs").success());
    let db = Connection::open(folder.join("state/inventory.db")).expect("the inventory");
    db.execute_batch(&format!(
        "PRAGMA foreign_keys = OFF; DROP TRIGGER audit_is_not_cut; DELETE FROM {table};"
    ))
    .expect("an empty table");
    PkiCommands::new(folder)
}

#[test]
fn the_doctor_finds_each_table_that_was_emptied() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let targets = vec![("x".to_owned(), free_port())];
    let eu_1 = Cluster { name: "eu-1", reach: Reach::DialsOut, targets };
    let mesh = Mesh::start(dir.path(), "auto", &[eu_1]);
    let (pki, state) = (mesh.pki(), mesh.pki_state());
    drop(mesh);
    pki.must("cluster add us-1 --environment testing STATE");
    pki.must("cluster pause us-1 --yes STATE");
    pki.must(&format!("cert revoke --issuer {} --reason stolen --yes ROOTS STATE", "ab".repeat(32)));
    pki.must_be_healthy("these changes");

    let db = Connection::open(state.join("inventory.db")).expect("the inventory");
    let mut tables = db
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        .expect("tables");
    let tables = tables.query_map([], |row| row.get::<_, String>(0)).expect("tables");
    let tables: Vec<String> = tables.collect::<Result<_, _>>().expect("names");
    assert!(tables.len() >= 8, "{tables:?}");
    for table in tables {
        let (code, printed) =
            emptied(&state, &table, &dir.path().join(format!("without-{table}"))).run("doctor --json STATE");
        let found: Value = serde_json::from_str(&printed).unwrap_or_else(|why| panic!("{why}: {printed}"));
        let critical: Vec<&str> = found["findings"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|finding| finding["severity"] == "critical")
            .filter_map(|finding| finding["text"].as_str())
            .collect();
        println!("{table}: {critical:?}");
        match named(&table) {
            Some(named) => {
                assert_eq!(code, 11, "{table}: {printed}");
                assert!(critical.iter().any(|text| text.contains(named)), "{table}: {printed}");
            }
            None => assert!(critical.is_empty(), "{table}: {printed}"),
        }
    }
}
