//! Starts the rulers, and Alertmanager.

use anyhow::Result;
use serde_json::Value;

use crate::quickstart::demonstration::{Demonstration, addresses, create_dir, write};

/// The rules that are shipped for operators.
const SHIPPED_RULES: &str = include_str!("../../../../deploy/rules/isthmus.yaml");

/// A rule that records something.
const RECORDING_RULES: &str = "groups:\n  - name: quickstart\n    rules:\n      - record: cluster:up:sum\n        expr: sum by (cluster) (up)\n";

/// Sends nothing to anybody.
const ALERTMANAGER: &str = "route: {receiver: none}\nreceivers: [{name: none}]\n";

impl Demonstration {
    /// Whether an Alertmanager runs.
    pub(in crate::quickstart) fn has_alertmanager(&self) -> bool {
        self.alertmanager.is_some()
    }

    /// Starts Alertmanager, if it is installed, and two rulers with the same rules.
    pub(in crate::quickstart) async fn start_rulers(&mut self) -> Result<()> {
        let plan = self.plan.clone();
        let rules = plan.observability.join("rules");
        create_dir(&rules)?;
        // Alerts fire after seconds, so that they can be seen.
        let shipped = SHIPPED_RULES.replace("for: 5m", "for: 5s").replace("for: 15m", "for: 15s");
        write(&rules.join("isthmus.yaml"), &shipped)?;
        write(&rules.join("quickstart.yaml"), RECORDING_RULES)?;
        if let Some(program) = self.alertmanager.clone() {
            let config = plan.observability.join("alertmanager.yml");
            write(&config, ALERTMANAGER)?;
            let args = vec![
                format!("--config.file={}", config.display()),
                format!("--storage.path={}", plan.observability.join("alertmanager").display()),
                format!("--web.listen-address={}", plan.alertmanager),
                // It is alone.
                "--cluster.listen-address=".to_owned(),
            ];
            self.ports.release(&[plan.alertmanager]);
            self.start_program("alertmanager", &program, args)?;
            self.wait_ready("alertmanager", plan.alertmanager).await?;
        }
        for ruler in &plan.rulers {
            let mut args = vec![
                "rule".to_owned(),
                format!("--rule-file={}", rules.join("*.yaml").display()),
                format!("--query=http://{}", plan.querier_http),
                format!("--label=replica=\"{}\"", ruler.name),
                // Without the label, the alerts of both rulers are one alert for Alertmanager.
                "--alert.label-drop=replica".to_owned(),
                format!("--alert.query-url=http://{}", plan.querier_http),
                "--eval-interval=2s".to_owned(),
                format!("--data-dir={}", plan.observability.join(&ruler.name).display()),
            ];
            if self.has_alertmanager() {
                args.push(format!("--alertmanagers.url=http://{}", plan.alertmanager));
            }
            args.extend(addresses(ruler.http, ruler.grpc));
            self.ports.release(&[ruler.http, ruler.grpc]);
            self.start(&ruler.name, args)?;
        }
        for ruler in &plan.rulers {
            self.wait_ready(&ruler.name, ruler.http).await?;
        }
        self.wait_ready("querier", plan.querier_http).await
    }

    /// The alerts that fire: from Alertmanager, or from the rulers over the querier if there is none. Labels are in the field
    /// `labels`.
    pub(in crate::quickstart) async fn alerts(&self) -> Result<Vec<Value>> {
        let alerts = match self.has_alertmanager() {
            true => self.http.json(&format!("http://{}/api/v2/alerts", self.plan.alertmanager)).await?,
            false => {
                let url = format!("http://{}/api/v1/alerts", self.plan.querier_http);
                self.http.json(&url).await?["data"]["alerts"].take()
            }
        };
        let mut alerts = alerts.as_array().cloned().unwrap_or_default();
        // Those of Alertmanager have another kind of state.
        alerts.retain(|alert| alert["state"] != "pending");
        Ok(alerts)
    }
}
