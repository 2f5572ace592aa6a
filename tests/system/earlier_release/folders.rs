//! The folders of all roles: filled by one program, and used by another one.
//!
//! What is written at first is noted in `facts.json`, with the times of the samples, and must be answered ever after.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tests::{free_port, wait_for};

use crate::earlier_release::blocks::{Blocks, generate};
use crate::earlier_release::mesh::{self, Gateways};
use crate::earlier_release::role::{PATIENCE, Role};

/// Whether the certificates in the folders are still valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    Fresh,
    Expired,
}

/// What is in the folders.
#[derive(Debug, Deserialize, Serialize)]
struct Facts {
    /// After the samples of the scraper and of the ruler, in seconds since the epoch.
    at: f64,
    /// How many samples of `up` the scraper has in the minute before.
    scraped: String,
    /// How many samples the ruler has recorded in the minute before.
    recorded: String,
    /// The sum of the generated series in the middle of the blocks in the bucket.
    stored: String,
}

pub(crate) struct Folders {
    dir: PathBuf,
    facts: Facts,
}

const SCRAPED: &str = "count_over_time(up[1m])";
const RECORDED: &str = "count_over_time(recorded[1m])";
const RULES: &str = "groups:\n- name: g\n  interval: 200ms\n  rules:\n\
    \x20 - {record: recorded, expr: vector(42)}\n\
    \x20 - {alert: Fires, expr: vector(1)}\n";

/// Samples that are waited for.
const ENOUGH: f64 = 5.0;

impl Folders {
    /// Lets every role of a program write into its folder.
    pub(crate) fn fill(program: &Path, dir: &Path) -> Self {
        mesh::create(program, dir);
        generate(program, &dir.join("scrape").display().to_string(), &[]);
        fs::create_dir(dir.join("uploads")).expect("a folder");
        let mut folders = Self {
            dir: dir.to_owned(),
            facts: Facts { at: 0.0, scraped: String::new(), recorded: String::new(), stored: String::new() },
        };
        let scraper = folders.scraper(program);
        let gateways = Gateways::start(program, dir, scraper.grpc, Age::Fresh);
        let (ruler, reader) = folders.ruler_and_querier(program, &gateways);
        let at = enough(&reader);
        wait_for("the upload of a block", PATIENCE, || {
            match scraper.metric("thanos_shipper_uploads_total") {
                Some(1.0) => Ok(()),
                count => Err(format!("{count:?}")),
            }
        });
        let value = |query: &str| reader.value(query, at).expect("a value");
        (folders.facts.at, folders.facts.scraped, folders.facts.recorded) =
            (at, value(SCRAPED), value(RECORDED));
        reader.end();
        ruler.end();
        gateways.end();
        scraper.end();

        folders.facts.stored = Blocks::of(dir).fill(program);
        fs::write(dir.join("facts.json"), serde_json::to_vec_pretty(&folders.facts).expect("JSON"))
            .expect("a file");
        folders
    }

    /// Folders that were filled before.
    pub(crate) fn load(dir: &Path) -> Self {
        let facts = fs::read(dir.join("facts.json")).expect("what was recorded");
        Self { dir: dir.to_owned(), facts: serde_json::from_slice(&facts).expect("JSON") }
    }

    /// Lets every role of a program find what is in its folder, and go on in it.
    pub(crate) fn are_used(&self, program: &Path, age: Age) {
        let Facts { at, scraped, recorded, stored } = &self.facts;
        mesh::is_read(program, &self.dir);
        let before = self.uploaded();
        assert!(before > 0, "a block was uploaded");
        let scraper = self.scraper(program);
        let gateways = Gateways::start(program, &self.dir, scraper.grpc, age);
        let (ruler, reader) = self.ruler_and_querier(program, &gateways);
        reader.answers(SCRAPED, *at, scraped);
        reader.answers(RECORDED, *at, recorded);
        println!("each role goes on");
        enough(&reader);
        // Of an old folder, the scraper cuts what was in the head when it has run for a minute.
        wait_for("uploads of new blocks, and of no block that was uploaded before", PATIENCE, || {
            let new = self.uploaded() - before;
            match scraper.metric("thanos_shipper_uploads_total") {
                Some(count) if count.to_string() == new.to_string() => Ok(()),
                count => Err(format!("{count:?} uploads, {new} new blocks")),
            }
        });
        reader.end();
        ruler.end();
        gateways.end();
        scraper.end();

        Blocks::of(&self.dir).are_used(program, stored);
    }

    /// What the store answers.
    pub(crate) fn stored(&self) -> &str {
        &self.facts.stored
    }

    /// Number of blocks in the bucket of the scraper.
    fn uploaded(&self) -> usize {
        let blocks = fs::read_dir(self.dir.join("uploads")).expect("a bucket");
        blocks.filter(|block| block.as_ref().expect("an entry").path().join("meta.json").exists()).count()
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// A scraper of itself, which keeps only `up` and uploads its block.
    fn scraper(&self, program: &Path) -> Role {
        let http = free_port();
        let config = self.path("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 200ms, external_labels: {{cluster: eu-1, environment: testing, replica: a}}}}\n\
             scrape_configs:\n- job_name: self\n  static_configs: [{{targets: ['{http}'], labels: {{instance: self}}}}]\n\
             \x20 metric_relabel_configs: [{{source_labels: [__name__], regex: up, action: keep}}]\n"
        );
        fs::write(&config, text).expect("a file");
        let flags = [
            format!("--config.file={config}"),
            format!("--data-dir={}", self.path("scrape")),
            "--storage.tsdb.retention.time=100y".to_owned(),
            format!("--objstore.config=type: FILESYSTEM\nconfig: {{directory: {}}}", self.path("uploads")),
        ];
        Role::start_at(program, &self.dir, "scrape", &flags, http)
    }

    /// A ruler whose alerts no Alertmanager takes, and a querier of the cluster and of the ruler.
    fn ruler_and_querier(&self, program: &Path, gateways: &Gateways) -> (Role, Role) {
        let (rules, queries) = (self.path("rules.yaml"), free_port());
        fs::write(&rules, RULES).expect("a file");
        let flags = [
            format!("--query=http://{queries}"),
            format!("--rule-file={rules}"),
            format!("--data-dir={}", self.path("rule")),
            "--label=replica=\"a\"".to_owned(),
            "--tsdb.retention=100y".to_owned(),
            format!("--alertmanagers.url=http://{}", free_port()),
        ];
        let ruler = Role::start(program, &self.dir, "rule", &flags);
        let flags =
            [format!("--gateway={}", gateways.observability.grpc), format!("--endpoint={}", ruler.grpc)];
        (ruler, Role::start_at(program, &self.dir, "query", &flags, queries))
    }
}

/// Waits until the scraper and the ruler have written some samples, and returns a time for which both have written all of theirs.
fn enough(reader: &Role) -> f64 {
    let at = wait_for("samples of the scraper and of the ruler", PATIENCE, || {
        let at = now();
        for query in [SCRAPED, RECORDED] {
            let count: f64 = reader.value(query, at)?.parse().unwrap_or_default();
            if count < ENOUGH {
                return Err(format!("{query}: {count}"));
            }
        }
        Ok(at)
    });
    wait_for("a second later", PATIENCE, || if now() > at + 1.0 { Ok(()) } else { Err(String::new()) });
    at
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}
