//! Whether the files of a state directory are those that its audit log knows.
//!
//! The log names the issuing CAs and the bundles that were used. A file that the log does not know was put there by hand, or the
//! inventory is that of another PKI.

use identity::{SpkiPin, TrustBundle};
use serde_json::Value;

use crate::{error::PkiError, inventory::Inventory};

/// The first entry, which marks the state directory as complete.
pub(crate) const CREATED: &str = "initialised";
/// Entries about another issuing CA.
const OF_ISSUER: [&str; 2] = ["issuing CA renewed", "issuing CA installed"];
/// The entry about another bundle.
const OF_BUNDLE: &str = "trust bundle installed";

impl Inventory {
    /// Checks that the log begins with the creation of this PKI, and knows the issuing CA with the key `issuing` and the roots of
    /// `bundle`. A log that an earlier program began does not name its issuing CAs, and is not compared with one.
    ///
    /// # Errors
    /// [`PkiError::Integrity`] with what does not agree.
    pub(crate) fn check_agreement(&self, issuing: SpkiPin, bundle: &TrustBundle) -> Result<(), PkiError> {
        let disagree = |why: String| Err(PkiError::Integrity(format!("state directory: {why}")));
        let mut statement = self.db.prepare(
            "SELECT event, detail FROM audit WHERE number = 1 OR event IN (?1, ?2, ?3) ORDER BY number",
        )?;
        let rows = statement.query_map([OF_ISSUER[0], OF_ISSUER[1], OF_BUNDLE], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        let entries = rows.collect::<Result<Vec<_>, _>>()?;
        let details = entries.into_iter().map(|(event, detail)| {
            let detail: Value = serde_json::from_str(&detail).unwrap_or_default();
            (event, detail)
        });
        let details: Vec<(String, Value)> = details.collect();
        let (domain, cluster) = self.identity()?;
        match details.first() {
            Some((event, detail)) if event == CREATED => {
                let named = (detail["trust_domain"].as_str(), detail["cluster"].as_str());
                if named != (Some(domain.as_str()), Some(cluster.as_str())) {
                    return disagree(format!(
                        "the inventory is for {cluster} of {domain}, and the first entry of the audit log for another PKI"
                    ));
                }
            }
            _ => return disagree("the audit log does not begin with the creation of the PKI".into()),
        }
        let of_roots = details.iter().filter(|(event, _)| event == OF_BUNDLE || event == CREATED);
        let mut roots: Vec<String> = bundle.pins().map(|pin| pin.to_string()).collect();
        roots.sort();
        let mut known_roots = of_roots.map(|(_, detail)| texts(&detail["roots"]));
        if !known_roots.any(|known| known == roots) {
            return disagree("the audit log does not know the roots of bundle.pem; restore the file".into());
        }
        let of_issuer = details.iter().filter(|(event, _)| event != OF_BUNDLE);
        let keys: Vec<Option<&str>> = of_issuer.map(|(_, detail)| detail["key"].as_str()).collect();
        if keys.iter().all(Option::is_some) && !keys.contains(&Some(issuing.to_string().as_str())) {
            return disagree(format!(
                "the audit log does not know the issuing CA {issuing} of issuer.pem; restore the file, or renew the CA"
            ));
        }
        Ok(())
    }
}

/// The texts of a list, sorted.
fn texts(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut texts: Vec<String> = texts.map(str::to_owned).collect();
    texts.sort();
    texts
}
