//! What counts towards the limits of a query, and how soon a query that exceeds them fails.

use super::*;

/// A range of 1680 steps.
fn fine() -> QueryParams {
    let end = Timestamp::from_millis(SAMPLES * STEP - 60_000);
    QueryParams::range(Timestamp::EPOCH, end, Duration::from_millis(500))
}

#[test]
fn series_created_by_an_operator_count_towards_the_limit() {
    let mut bucket = counters(1);
    let pairs = [("__name__", "requests_total"), ("le", "+Inf")];
    bucket[0].labels = Labels::from_pairs(pairs).unwrap();
    let many = counters(1200);
    let limit = 8_000_000;
    let engine = EngineOptions { max_bytes: limit, ..engine() };
    for (text, series) in [
        // One column per step.
        ("histogram_quantiles(requests_total, 'q', time() / 1000)", &bucket),
        ("histogram_quantiles(requests_total, 'q', time() % 3, time() / 1000, 0.5)", &bucket),
        // One column for each of about 900 series, each of which is chosen once or twice.
        ("topk(1, sin(requests_total * 1000 * time()))", &many),
        ("bottomk(1, sin(requests_total * 1000 * time()))", &many),
    ] {
        let error = evaluate(text, series, 128, &fine(), &engine).unwrap_err();
        let QueryError::Limit(error) = error else { panic!("{text}: {error}") };
        assert!(error.kind == LimitKind::Bytes && error.needed < limit + 50_000, "{text}: {error}");
    }
    let same = "histogram_quantiles(requests_total, 'q', 0.45, 0.9, time() % 3 / 2)";
    let QueryValue::Matrix(rows) = evaluate(same, &bucket, 1, &fine(), &engine).unwrap().value else {
        panic!("not a matrix")
    };
    let mut quantiles: Vec<_> = rows.iter().map(|row| row.labels.value("q")).collect();
    quantiles.dedup();
    assert_eq!(quantiles, ["0.0", "0.25", "0.45", "0.5", "0.75", "0.9", "1.0", "1.25"]);
}

#[test]
fn a_result_stays_reserved_until_it_is_dropped() {
    let mut storage = crate::promqltest::Storage::new();
    for line in
        ["h {{schema:0 sum:5 count:9 buckets:[1 2 1 2 3]}}+{{count:1 buckets:[1]}}x20", "f{a=\"b\"} 1+1x20"]
    {
        let (labels, values) = crate::promqltest::parse_series(line).unwrap();
        storage.append_sequence(&labels, Timestamp::EPOCH, 15_000, &values).unwrap();
    }
    let range =
        QueryParams::range(Timestamp::EPOCH, Timestamp::from_millis(300_000), Duration::from_secs(15));
    let instant = QueryParams::instant(Timestamp::from_millis(300_000));
    for (text, params) in [("{__name__=~'.+'}", &range), ("{__name__=~'.+'}[10m]", &instant)] {
        let total = TotalBudget::unlimited(&QUERIES);
        let engine = EngineOptions { total: total.clone(), ..engine() };
        let query = Query::plan(text, params, &engine).unwrap();
        let select = query.selects()[0].clone();
        let mut evaluation = query.evaluation();
        let id = evaluation.next_select().unwrap();
        evaluation.push(id, storage.select(&select.matchers, select.range)).unwrap();
        evaluation.end_select(id).unwrap();
        let output = evaluation.finish().unwrap();
        let QueryValue::Matrix(rows) = &output.value else { panic!("{text} does not return a matrix") };
        assert_eq!(
            rows.iter().map(|row| row.floats.len() + row.histograms.len()).collect::<Vec<_>>(),
            [21, 21]
        );
        let histograms = rows.iter().flat_map(|row| &row.histograms).map(|(_, h)| h.size_bytes() + 16);
        let samples = 21 * 16 + histograms.sum::<usize>();
        assert!(total.reserved_bytes() > samples as u64, "{text}: {} and {samples}", total.reserved_bytes());
        let other = output.clone();
        drop(output);
        assert!(total.reserved_bytes() > samples as u64, "{text}");
        drop(other);
        assert_eq!(total.reserved_bytes(), 0, "{text}");
    }
}

#[test]
fn many_to_many_joins_fail_without_comparing_all_pairs() {
    let count = 700;
    for (text, side) in [
        ("requests_total + on () {__name__=~'.+'}", "right"),
        ("requests_total * on (job) group_right {__name__=~'.+'}", "left"),
        ("requests_total + on () fill (0) (requests_total offset 1m)", "right"),
    ] {
        let interrupt = Interrupt::counting();
        let params = QueryParams { interrupt: interrupt.clone(), ..params() };
        let error = evaluate(text, &counters(count), 128, &params, &engine()).unwrap_err().to_string();
        assert!(error.contains("many-to-many matching not allowed") && error.contains(side), "{error}");
        let looks = interrupt.checks();
        assert!(looks < 10 * count as u64, "{text}: {looks} checks for cancellation");
    }
}

#[test]
fn more_than_a_thousand_different_selectors_are_rejected() {
    let plan = |count: usize| {
        let selectors: Vec<String> = (0..count).map(|n| format!("x{{n=\"{n}\"}} or x")).collect();
        Query::plan(&selectors.join(" or "), &params(), &engine())
    };
    assert_eq!(plan(999).unwrap().selects().len(), 1000);
    let error = plan(9000).unwrap_err();
    assert!(matches!(error, QueryError::Parse(_)), "{error}");
    assert!(error.to_string().starts_with("1:"), "{error}");
    assert!(error.to_string().contains("more than the limit of 1000 different selectors"), "{error}");
}

#[test]
fn buckets_are_corrected_once_and_invalid_bounds_are_reported() {
    let mut storage = crate::promqltest::Storage::new();
    for line in
        ["b{le=\"1\"} 5", "b{le=\"2\"} 3", "b{le=\"inf\"} 6", "b{le=\"1e400\"} 100", "b{le=\"-nan\"} 7"]
    {
        let (labels, values) = crate::promqltest::parse_series(line).unwrap();
        storage.append_sequence(&labels, Timestamp::EPOCH, 15_000, &values).unwrap();
    }
    let notes = |text: &str| {
        let query = Query::plan(text, &QueryParams::instant(Timestamp::EPOCH), &engine()).unwrap();
        let select = query.selects()[0].clone();
        let mut evaluation = query.evaluation();
        let id = evaluation.next_select().unwrap();
        evaluation.push(id, storage.select(&select.matchers, select.range)).unwrap();
        evaluation.end_select(id).unwrap();
        evaluation.finish().unwrap().annotations
    };
    for text in [
        "histogram_quantile(0.5, b)",
        "histogram_quantiles(b, 'q', 0.5, 0.9, 0.99)",
        "histogram_quantiles(b, 'q', -1, 2, NaN, 0.9, 0.99)",
    ] {
        let notes = notes(text);
        assert_eq!(notes.infos.len(), 1, "{text}: {notes:?}");
        assert!(notes.infos[0].contains("a max diff of 2, over 1 samples"), "{text}: {notes:?}");
        for bound in ["1e400", "-nan"] {
            let told = format!("malformed value of \"{bound}\"");
            assert!(notes.warnings.iter().any(|line| line.contains(&told)), "{text}: {notes:?}");
        }
    }
}

#[test]
fn regexes_of_matchers_and_label_replace_share_a_limit() {
    let plan =
        |text: &str| Query::plan(text, &fine(), &engine()).map(|_| ()).map_err(|error| error.to_string());
    let rejected = |text: &str| {
        let error = plan(text).unwrap_err();
        assert!(error.contains("regular expressions need more than 64 MiB together"), "{error:.200}");
    };
    // Expressions in matchers and in `label_replace`, each below the limit on its own.
    let matchers =
        |count: usize| -> String { (0..count).map(|i| format!("a{i}=~'[a-z_]{{900}}',")).collect() };
    let most =
        (1..).map(|i| i * 25).find(|count| plan(&format!("m{{{}}}", matchers(*count))).is_err()).unwrap();
    let few = matchers(most - 25);
    plan(&format!("m{{{few}}}")).unwrap();
    let many = "label_replace(".repeat(60) + "m" + &", 'x', '$1', 's', '([a-z_]{900})')".repeat(60);
    plan(&many).unwrap();
    rejected(&format!("{many} + m{{{few}}}"));
    // Lists of literals use memory as soon as groups are recorded, and many groups do, too.
    let list = (0..40_000).map(|i| format!("v{i}")).collect::<Vec<_>>().join("|");
    plan(&format!("m{{s=~'(({list}))'}}")).unwrap();
    plan(&format!("label_replace(m, 'x', '$1', 's', '(({list}))')")).unwrap();
    let nested = "(".repeat(20) + &list + &")".repeat(20);
    plan(&format!("m{{s=~'{nested}'}}")).unwrap();
    rejected(&format!("label_replace(m, 'x', '$1', 's', '{nested}')"));
    rejected(&format!("label_replace(m, 'x', '$1', 's', '<{}>')", r"(\\pL?)".repeat(1500)));
}

#[test]
fn chosen_series_are_reserved_once() {
    let series = counters(500);
    let held = |text: &str| {
        let total = TotalBudget::unlimited(&QUERIES);
        let engine = EngineOptions { total: total.clone(), ..engine() };
        let mut evaluation = Query::plan(text, &fine(), &engine).unwrap().evaluation();
        let id = evaluation.next_select().unwrap();
        evaluation.push(id, series.clone()).unwrap();
        evaluation.end_select(id).unwrap();
        total.reserved_bytes()
    };
    let all = held("sort_by_label(requests_total, 'job') or absent(requests_total offset 1m)");
    for choice in ["topk(500, requests_total)", "bottomk(500, requests_total)", "limitk(500, requests_total)"]
    {
        let chosen = held(&format!("{choice} or absent(requests_total offset 1m)"));
        assert!(chosen < all + all / 10, "{choice}: {chosen} bytes, expected about {all}");
    }
}
