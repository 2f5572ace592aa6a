//! Backup and restore of a state directory: one encrypted file with the inventory, the issuing CA and the bundle.
//!
//! A backup is always older than what it replaces. So a restore reopens no token, takes over what was revoked since from the
//! denylists that gateways have stored, and accepts certificates that were issued between the backup and the restore when
//! their owners first connect.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use identity::{DenySubject, Secret, SignedDenylist, read_bounded, write_private, write_public};
use rusqlite::{Connection, params};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    authority::{CertificateAuthority, utc},
    error::PkiError,
    inventory::{Inventory, StateDir},
    seal::{Argon2Cost, seal, unseal},
};

/// Largest backup.
const MAX_BACKUP_BYTES: u64 = 1 << 30;

/// Writes a backup to `out`, and returns how many bytes it has before it is encrypted. Without `out`, only checks that one can be
/// made.
pub(crate) fn backup(
    state: &Path,
    out: Option<&Path>,
    passphrase: &Secret<String>,
    cost: Argon2Cost,
    now: SystemTime,
) -> Result<usize, PkiError> {
    let dir = StateDir::new(state);
    let inventory = Inventory::open(&dir)?;
    let copy = dir.path().join(format!(".backup-{}.db", std::process::id()));
    let copied = inventory.copy_to(&copy).and_then(|()| {
        let db = Connection::open(&copy)?;
        db.execute_batch("CREATE TABLE backup_files (name TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT;")?;
        for (name, path) in [("issuer", dir.issuer()), ("bundle", dir.bundle())] {
            let bytes = Zeroizing::new(read_bounded(&path, 1 << 20).map_err(PkiError::io("read", &path))?);
            db.execute("INSERT INTO backup_files (name, bytes) VALUES (?1, ?2)", params![name, &*bytes])?;
        }
        db.execute("INSERT OR REPLACE INTO settings (key, value) VALUES ('backup_at', ?1)", [utc(now)])?;
        drop(db);
        Ok(Zeroizing::new(read_bounded(&copy, MAX_BACKUP_BYTES).map_err(PkiError::io("read", &copy))?))
    });
    // Best effort: it holds no more than the state directory itself.
    let _ = fs::remove_file(&copy);
    let copied = copied?;
    if let Some(out) = out {
        let sealed = seal(&copied, passphrase, cost)?;
        write_private(out, sealed.as_bytes()).map_err(PkiError::io("write", out))?;
    }
    Ok(copied.len())
}

/// The parameters of [`restore`].
pub(crate) struct RestoreOptions {
    pub(crate) from: PathBuf,
    /// The new state directory, which must not exist.
    pub(crate) state: PathBuf,
    pub(crate) passphrase: Secret<String>,
    /// Denylists that gateways have stored.
    pub(crate) denylists: Vec<PathBuf>,
}

/// What a restore did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Restored {
    /// Tokens that could be used at the time of the backup, and cannot any more.
    pub(crate) tokens: usize,
    /// Entries of the denylists that the backup did not have.
    pub(crate) denials: usize,
}

/// Makes a state directory from a backup.
pub(crate) fn restore(options: &RestoreOptions, now: SystemTime) -> Result<Restored, PkiError> {
    let dir = StateDir::new(&options.state);
    if dir.inventory().exists() {
        return Err(PkiError::Conflict(format!(
            "{}: already contains a PKI; restore into another directory",
            dir.path().display()
        )));
    }
    let (from, io) = (&options.from, PkiError::io);
    let sealed = read_bounded(from, 2 * MAX_BACKUP_BYTES).map_err(io("read", from))?;
    let damaged = |why: &str| PkiError::Integrity(format!("{}: {why}", from.display()));
    let sealed = String::from_utf8(sealed).map_err(|_| damaged("not a backup"))?;
    let plain = unseal(&sealed, &options.passphrase).map_err(|e| match e {
        PkiError::Refused(_) => {
            PkiError::Refused(format!("{}: the passphrase does not decrypt the backup", from.display()))
        }
        _ => damaged("not a backup, or damaged"),
    })?;
    dir.create()?;
    // Under another name until it is complete: a directory without an inventory is no state directory.
    let part = dir.path().join("restoring.db");
    write_private(&part, &plain).map_err(io("write", &part))?;
    let restored = (|| {
        let db = Connection::open(&part)?;
        let file = |name: &str| -> Result<Zeroizing<Vec<u8>>, PkiError> {
            let bytes =
                db.query_row("SELECT bytes FROM backup_files WHERE name = ?1", [name], |row| row.get(0));
            Ok(Zeroizing::new(bytes?))
        };
        write_private(&dir.issuer(), &file("issuer")?).map_err(io("write", &dir.issuer()))?;
        write_public(&dir.bundle(), &file("bundle")?).map_err(io("write", &dir.bundle()))?;
        db.execute_batch("DROP TABLE backup_files; VACUUM;")?;
        drop(db);
        CertificateAuthority::load(&dir.issuer())?;
        let mut inventory = Inventory::connect_to(&part)?;
        inventory.verify_audit(None)?;
        let denied = later_denials(&dir, &inventory, options)?;
        inventory.restored(&denied, now)
    })();
    let restored = match restored {
        Ok(restored) => restored,
        Err(error) => {
            let _ = fs::remove_file(&part);
            return Err(error);
        }
    };
    fs::rename(&part, dir.inventory()).map_err(io("rename", &part))?;
    Ok(restored)
}

/// Does the same as [`restore`] in a folder of its own, which it removes.
pub(crate) fn check_restore(mut options: RestoreOptions, now: SystemTime) -> Result<Restored, PkiError> {
    if StateDir::new(&options.state).inventory().exists() {
        return restore(&options, now);
    }
    let mut name = std::ffi::OsString::from(".");
    name.push(options.state.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    options.state.set_file_name(name);
    let restored = restore(&options, now);
    match fs::remove_dir_all(&options.state) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(PkiError::io("remove", &options.state)(error))
        }
        _ => restored,
    }
}

/// What the given denylists deny.
fn later_denials(
    dir: &StateDir,
    inventory: &Inventory,
    options: &RestoreOptions,
) -> Result<Vec<identity::DenyEntry>, PkiError> {
    let (domain, _) = inventory.identity()?;
    let bundle = identity::TrustBundle::load(domain, &dir.bundle())?;
    let mut denied = Vec::new();
    for path in &options.denylists {
        let bytes =
            read_bounded(path, identity::MAX_DENYLIST_BYTES as u64).map_err(PkiError::io("read", path))?;
        let list = SignedDenylist::parse(&bytes, &bundle, None)
            .map_err(|e| PkiError::Refused(format!("{}: {e}", path.display())))?;
        let of_issuer = |entry: &&identity::DenyEntry| !matches!(entry.subject, DenySubject::Issuer(_));
        denied.extend(list.entries().iter().filter(of_issuer).cloned());
    }
    Ok(denied)
}

impl Inventory {
    /// Closes what a backup has open, and adds what was denied since.
    fn restored(&mut self, denied: &[identity::DenyEntry], now: SystemTime) -> Result<Restored, PkiError> {
        let window = self.close_for_restore(now)?;
        let mut denials = 0;
        for entry in denied {
            denials += usize::from(self.deny_again(entry, now)?);
        }
        let detail = json!({
            "backup_at": window.since, "tokens": window.tokens, "denials": denials,
        });
        self.record(now, "restored from a backup", &detail)?;
        Ok(Restored { tokens: window.tokens, denials })
    }
}

#[cfg(test)]
mod tests;
