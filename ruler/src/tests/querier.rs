//! Queriers that answer what a test says, for answers that no real one gives when it should.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{RawForm, State};
use axum::response::IntoResponse;
use http::StatusCode;

use super::*;

/// The parameters of a request.
type Form = Vec<(String, String)>;

/// What a querier does.
#[derive(Clone, Debug)]
pub(super) enum Behaviour {
    /// It answers each query with a sample for each of these `(label, value)`, with these warnings.
    Answers(Vec<(&'static str, f64)>, Vec<&'static str>),
    /// It answers so many queries, and then hangs.
    AnswersFirst(u32, Vec<(&'static str, f64)>),
    Fails(u16, &'static str),
    Hangs,
    Raw(&'static str),
}

#[derive(Clone)]
pub(super) struct FakeQuerier {
    pub(super) address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
    /// What it does with queries that restore alerts, if that is something else.
    restoring: Arc<Mutex<Option<Behaviour>>>,
    requests: Arc<Mutex<VecDeque<Form>>>,
}

impl FakeQuerier {
    pub(super) async fn start(behaviour: Behaviour) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Self {
            address: listener.local_addr().unwrap(),
            behaviour: Arc::new(Mutex::new(behaviour)),
            restoring: Arc::default(),
            requests: Arc::default(),
        };
        let routes = Router::new().route("/api/v1/query", axum::routing::get(answer).post(answer));
        let routes = routes.with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        this
    }

    pub(super) fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    pub(super) fn set_restoring(&self, behaviour: Behaviour) {
        *self.restoring.lock().unwrap() = Some(behaviour);
    }

    /// What it does with a query.
    fn behaviour(&self, query: &str) -> Behaviour {
        if query.contains("ALERTS_FOR_STATE")
            && let Some(restoring) = self.restoring.lock().unwrap().clone()
        {
            return restoring;
        }
        let mut behaviour = self.behaviour.lock().unwrap();
        let Behaviour::AnswersFirst(left, samples) = &mut *behaviour else { return behaviour.clone() };
        let Some(rest) = left.checked_sub(1) else { return Behaviour::Hangs };
        *left = rest;
        Behaviour::Answers(samples.clone(), vec![])
    }

    pub(super) fn flag(&self) -> String {
        format!("--query=http://{}", self.address)
    }

    /// The parameters of the requests since the last call.
    pub(super) fn requests(&self) -> Vec<Form> {
        self.requests.lock().unwrap().drain(..).collect()
    }
}

async fn answer(State(querier): State<FakeQuerier>, RawForm(form): RawForm) -> impl IntoResponse {
    let form: Form = url::form_urlencoded::parse(&form).into_owned().collect();
    let at: f64 = form.iter().find(|(name, _)| name == "time").map_or(0.0, |(_, at)| at.parse().unwrap());
    let query = form.iter().find(|(name, _)| name == "query").map(|(_, query)| query.clone());
    querier.requests.lock().unwrap().push_back(form);
    match querier.behaviour(&query.unwrap_or_default()) {
        Behaviour::Answers(samples, warnings) => {
            let samples: Vec<Value> = samples
                .iter()
                .map(|(label, value)| json!({"metric": {"job": label}, "value": [at, value.to_string()]}))
                .collect();
            let body = json!({"status": "success", "data": {"resultType": "vector", "result": samples}, "warnings": warnings});
            (StatusCode::OK, body.to_string())
        }
        Behaviour::Fails(status, error) => {
            let body = json!({"status": "error", "errorType": "execution", "error": error});
            (StatusCode::from_u16(status).unwrap(), body.to_string())
        }
        Behaviour::Hangs | Behaviour::AnswersFirst(..) => std::future::pending().await,
        Behaviour::Raw(text) => (StatusCode::OK, text.to_owned()),
    }
}

const RULES: &str = "groups:\n- name: g\n  interval: 300ms\n  rules:\n  - {record: r, expr: up}\n\
    - name: w\n  interval: 300ms\n  partial_response_strategy: warn\n  rules: [{record: w, expr: up}]\n";

#[tokio::test(flavor = "multi_thread")]
async fn another_querier_is_asked_and_strategies_are_passed_on() {
    let dir = TempDir::new().unwrap();
    write_rules(dir.path(), RULES);
    let good = FakeQuerier::start(Behaviour::Answers(vec![("a", 1.5), ("b", 2.0)], vec![])).await;
    let bad = FakeQuerier::start(Behaviour::Fails(500, "broken")).await;
    let gone = "--query=http://127.0.0.1:1";
    let role = start(dir.path(), &[&good.flag(), &bad.flag(), gone]).await;
    let http = role.http_address();
    until_health(http, "r", "ok").await;
    until_health(http, "w", "ok").await;
    assert_eq!(
        stored(http, "r").await,
        [("__name__=r,job=a".to_owned(), "1.5".to_owned()), ("__name__=r,job=b".to_owned(), "2".to_owned())]
    );
    let partial = |form: &Form| {
        let find =
            |wanted: &str| form.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
        (find("partial_response").unwrap(), find("dedup").unwrap(), find("query").unwrap())
    };
    let mut seen: Vec<_> = good.requests().iter().map(partial).collect();
    seen.sort();
    seen.dedup();
    let text = |text: &str| text.to_owned();
    assert_eq!(seen, [(text("false"), text("true"), text("up")), (text("true"), text("true"), text("up"))]);

    println!("without a querier that answers, rules fail, and say why");
    good.set(Behaviour::Fails(422, "store eu-1 is missing"));
    let failed = until_health(http, "r", "err").await;
    let error = failed["lastError"].as_str().unwrap();
    for expected in
        ["store eu-1 is missing", "500 Internal Server Error: broken", "querier http://127.0.0.1:1: "]
    {
        assert!(error.contains(expected), "{error}");
    }
    good.set(Behaviour::Answers(vec![("a", 3.0)], vec![]));
    until_health(http, "r", "ok").await;
    until("the series that vanished has ended", async || stored(http, "r").await.len() == 1).await;
    stop(role).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_an_instant_ask_one_querier_and_every_querier_is_asked() {
    let dir = TempDir::new().unwrap();
    let rules: Vec<String> = (0..5).map(|n| format!("{{record: r{n}, expr: up}}")).collect();
    let text = format!("groups: [{{name: g, interval: 100ms, rules: [{}]}}]", rules.join(", "));
    write_rules(dir.path(), &text);
    let answer = Behaviour::Answers(vec![("a", 1.0)], vec![]);
    let queriers = [FakeQuerier::start(answer.clone()).await, FakeQuerier::start(answer).await];
    let role = start(dir.path(), &[&queriers[0].flag(), &queriers[1].flag()]).await;
    let mut instants: [std::collections::BTreeSet<String>; 2] = Default::default();
    until("each querier has answered at three instants", async || {
        for (querier, instants) in queriers.iter().zip(&mut instants) {
            for form in querier.requests() {
                assert!(form.contains(&("share_selects".to_owned(), "true".to_owned())), "{form:?}");
                instants.extend(form.into_iter().filter(|(name, _)| name == "time").map(|(_, at)| at));
            }
        }
        instants.iter().all(|instants| instants.len() >= 3)
    })
    .await;
    assert!(instants[0].is_disjoint(&instants[1]), "{instants:?}");
    stop(role).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_answer_fails_under_abort_and_counts_under_warn() {
    let dir = TempDir::new().unwrap();
    write_rules(dir.path(), RULES);
    let querier =
        FakeQuerier::start(Behaviour::Answers(vec![("a", 1.0)], vec!["no cluster us-1", "PromQL info: x"]))
            .await;
    let role = start(dir.path(), &[&querier.flag(), "--query.http-method=GET"]).await;
    let http = role.http_address();
    let failed = until_health(http, "r", "err").await;
    assert!(
        failed["lastError"].as_str().unwrap().ends_with("the answer is partial: no cluster us-1"),
        "{failed}"
    );
    until_health(http, "w", "ok").await;
    assert_eq!(stored(http, "{__name__=~'r|w'}").await, [("__name__=w,job=a".to_owned(), "1".to_owned())]);
    let warned = r#"thanos_rule_evaluation_with_warnings_total{strategy="warn"}"#;
    assert!(metric(http, warned).await.unwrap() >= 1.0);

    println!("annotations of PromQL are no missing data");
    querier.set(Behaviour::Answers(vec![("a", 1.0)], vec!["PromQL warning: odd"]));
    until_health(http, "r", "ok").await;

    println!("answers that are not those of an API are named");
    for (raw, expected) in [
        ("<html>", "the answer is not one of the Prometheus API"),
        (
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}}"#,
            "use --endpoint or --gateway",
        ),
        (r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#, "not a vector or scalar"),
    ] {
        querier.set(Behaviour::Raw(raw));
        let mut last = String::new();
        until(&format!("an error with {expected:?}"), async || {
            last = rule(http, "r").await["lastError"].as_str().unwrap_or_default().to_owned();
            last.contains(expected)
        })
        .await;
    }
    stop(role).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_missing_is_an_error_with_its_name_and_no_empty_result() {
    let dir = TempDir::new().unwrap();
    write_rules(
        dir.path(),
        "groups: [{name: g, interval: 300ms, rules: [{record: of_stores, expr: absent(up)}, {record: of_none, expr: vector(1)}]}]",
    );
    let flags = ["--endpoint=127.0.0.1:1", "--endpoint.info-timeout=200ms", "--query.timeout=5s"];
    let role = start(dir.path(), &flags).await;
    let http = role.http_address();
    let failed = until_health(http, "of_stores", "err").await;
    assert!(failed["lastError"].as_str().unwrap().contains("127.0.0.1:1"), "{failed}");
    until_health(http, "of_none", "ok").await;
    assert_eq!(stored(http, "{__name__=~'of_.*'}").await, [("__name__=of_none".to_owned(), "1".to_owned())]);
    stop(role).await;
}
