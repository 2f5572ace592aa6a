//! Tests of parameters.

use super::*;

fn params(query: &str) -> Params {
    Params::parse(Some(query), None).unwrap()
}

#[test]
fn form_body_takes_precedence_over_query_string() {
    let params = Params::parse(Some("a=1&b=x%20y&a=2&flag"), Some(b"a=3&c=%7B+%C3%A9")).unwrap();
    assert_eq!(params.get("a"), Some("3"));
    assert_eq!(params.all("a").collect::<Vec<_>>(), ["3", "1", "2"]);
    assert_eq!(params.get("b"), Some("x y"));
    assert_eq!(params.get("c"), Some("{ é"));
    assert_eq!((params.get("flag"), params.contains("flag")), (None, true));
}

#[test]
fn query_string_takes_precedence_over_a_multipart_form() {
    let body = b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n%20 +\r\n--x--";
    let read = |query| Params::parse_multipart(Some(query), "multipart/form-data; boundary=x", body).unwrap();
    assert_eq!(read("b=1").get("a"), Some("%20 +"));
    assert_eq!(read("a=1").all("a").collect::<Vec<_>>(), ["1", "%20 +"]);
    let error = Params::parse_multipart(None, "multipart/form-data", body).unwrap_err().to_string();
    assert_eq!(error, "error parsing form values: multipart form: the content type has no boundary");
}

#[test]
fn invalid_forms_are_rejected() {
    for (query, expected) in [
        ("a=%zz", "error parsing form values: invalid URL escape \"%zz\""),
        ("a=%2", "error parsing form values: invalid URL escape \"%2\""),
        ("a=%", "error parsing form values: invalid URL escape \"%\""),
        ("a=1;b=2", "error parsing form values: invalid semicolon separator in query"),
        ("a=%ff", "error parsing form values: text is not valid UTF-8"),
    ] {
        assert_eq!(Params::parse(Some(query), None).unwrap_err().to_string(), expected);
    }
}

#[test]
fn times_are_floats_or_rfc3339() {
    for (text, millis) in [
        ("0", 0),
        ("1.5", 1500),
        ("1435781451.781", 1_435_781_451_781),
        ("-1.5", -1500),
        ("1e3", 1_000_000),
        ("1.0004", 1000),
        ("1.0006", 1001),
        ("2015-07-01T20:10:51.781Z", 1_435_781_451_781),
        ("2015-07-01T22:10:51.781%2B02:00", 1_435_781_451_781),
        (MIN_TIME_TEXT, MIN_TIME.as_millis()),
        (MAX_TIME_TEXT, MAX_TIME.as_millis()),
    ] {
        assert_eq!(
            params(&format!("t={text}")).time("t"),
            Ok(Some(Timestamp::from_millis(millis))),
            "{text}"
        );
    }
    assert_eq!(params("").time("t"), Ok(None));
    for text in ["now", "NaN", "Inf", "1e300", "2015-07-01", "1_000"] {
        let error = params(&format!("t={text}")).time("t").unwrap_err().to_string();
        assert_eq!(error, format!("invalid parameter \"t\": cannot parse {text:?} to a valid timestamp"));
    }
}

#[test]
fn durations_are_floats_or_prometheus_notation() {
    for (text, millis) in [("15", 15_000), ("0.25", 250), ("1h30m", 5_400_000), ("0", 0), ("0s", 0)] {
        let length = params(&format!("d={text}")).duration("d").unwrap();
        assert_eq!(length, Some(Duration::from_millis(millis)), "{text}");
    }
    for (text, tail) in [("x", ""), ("-5", ""), ("1m1h", ""), ("1e10", ". It overflows int64"), ("300y", "")]
    {
        let error = params(&format!("d={text}")).duration("d").unwrap_err().to_string();
        let expected = format!("invalid parameter \"d\": cannot parse {text:?} to a valid duration{tail}");
        assert_eq!(error, expected);
    }
}

#[test]
fn booleans_and_limits_are_parsed_as_in_go() {
    assert_eq!(params("a=T&b=False&c=").bool("a"), Ok(Some(true)));
    assert_eq!(params("a=T&b=False&c=").bool("b"), Ok(Some(false)));
    assert_eq!(params("a=T&b=False&c=").bool("c"), Ok(None));
    let error = params("a=yes").bool("a").unwrap_err().to_string();
    assert_eq!(error, "invalid parameter \"a\": strconv.ParseBool: parsing \"yes\": invalid syntax");
    assert_eq!(params("limit=5").limit("limit"), Ok(Some(5)));
    assert_eq!(params("limit=0").limit("limit"), Ok(None));
    let error = |text: &str| params(text).limit("limit").unwrap_err().to_string();
    assert_eq!(error("limit=-1"), "invalid parameter \"limit\": limit must be non-negative");
    assert_eq!(error("limit=x"), "invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax");
    assert!(error("limit=99999999999999999999").ends_with("value out of range"));
}

#[test]
fn range_query_parameters_are_validated_together() {
    let check = |query: &str| params(query).range_query(|_| None);
    let range = check("start=0&end=11000.9&step=1").unwrap();
    assert_eq!(range.step, Duration::from_secs(1));
    for (query, expected) in [
        ("end=1&step=1", "invalid parameter \"start\": cannot parse \"\" to a valid timestamp"),
        ("start=2&end=1&step=1", "invalid parameter \"end\": end timestamp must not be before start time"),
        ("start=1&end=2", "invalid parameter \"step\": cannot parse \"\" to a valid duration"),
        (
            "start=1&end=2&step=0",
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
        ),
        (
            "start=1&end=2&step=-3",
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
        ),
        (
            "start=0&end=11001&step=1",
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ),
    ] {
        assert_eq!(check(query).unwrap_err().to_string(), expected);
    }
    let range = params("start=0&end=250").range_query(|_| Some(Duration::from_secs(2))).unwrap();
    assert_eq!(range.step, Duration::from_secs(2));
    assert_eq!(params("").metadata_range(), Ok(TimeRange::new(MIN_TIME, MAX_TIME)));
}
