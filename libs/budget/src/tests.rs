//! Limits, reservations and the total as their users see them.

use crate::{Budget, BudgetLimits, Consumers, Interrupt, Meter, Reservation, TotalBudget};

static QUERIES: Consumers = Consumers {
    one: "query",
    many: "queries",
    advice: "select fewer series, a shorter range or a longer step",
};

fn total(samples: u64, bytes: u64) -> TotalBudget {
    TotalBudget::new(&QUERIES, BudgetLimits { samples, bytes })
}

fn unlimited() -> TotalBudget {
    TotalBudget::unlimited(&QUERIES)
}

fn budget(samples: u64, bytes: u64, total: &TotalBudget) -> Budget {
    Budget::new(total, BudgetLimits { samples, bytes }, Interrupt::new())
}

#[test]
fn a_dropped_reservation_releases_its_bytes() {
    let total = unlimited();
    let budget = budget(10, 100, &total);
    let mut first = Reservation::new(&budget);
    first.add(80).unwrap();
    let error = Reservation::new(&budget).add(30).unwrap_err();
    assert!(error.to_string().contains("110 bytes, more than max_bytes=100"), "{error}");
    drop(first);
    let mut second = Reservation::new(&budget);
    second.add(60).unwrap();
    second.grow_to(100).unwrap();
    assert_eq!((budget.peak_bytes(), total.reserved_bytes()), (100, 100));
    second.resize(30).unwrap();
    assert_eq!(total.reserved_bytes(), 30);
    drop(second);
    assert_eq!(total.reserved_bytes(), 0);
}

#[test]
fn bytes_stay_reserved_while_they_move_to_another_meter() {
    let total = unlimited();
    let budget = budget(10, 100, &total);
    let meters = [Meter::new(), Meter::new()];
    let mut whole = Reservation::new(&budget);
    whole.add(100).unwrap();
    let mut part = whole.split_off(60);
    meters.iter().for_each(|meter| part.move_to(meter));
    assert_eq!((total.reserved_bytes(), budget.peak_bytes()), (100, 100));
    drop(part);
    assert_eq!(total.reserved_bytes(), 40);
    for meter in &meters {
        // The meter is at zero again, so that 50 more are not a new peak.
        Reservation::metered(&budget, meter).add(50).unwrap();
        assert_eq!(meter.peak_bytes(), 60);
    }
}

#[test]
fn samples_add_up_to_their_limit() {
    let budget = budget(10, 0, &unlimited());
    budget.count_samples(10).unwrap();
    assert!(budget.count_samples(1).is_err());
}

#[test]
fn refused_samples_are_not_counted_in_the_total() {
    let total = total(100, 0);
    for _ in 0..3 {
        let greedy = budget(50, 0, &total);
        greedy.count_samples(40).unwrap();
        greedy.count_samples(40).unwrap_err();
        assert_eq!(total.samples(), 40);
    }
    assert_eq!(total.samples(), 0);
    let first = budget(100, 0, &total);
    first.count_samples(70).unwrap();
    let second = budget(100, 0, &total);
    second.count_samples(40).unwrap_err();
    second.count_samples(30).unwrap();
    drop((first, second));
    assert_eq!(total.samples(), 0);
}

#[test]
fn bytes_of_refused_work_do_not_count_against_other_work() {
    let total = total(10, 800);
    let (first, second) = (budget(10, 800, &total), budget(10, 800, &total));
    let (mut refused, mut other) = (Reservation::new(&first), Reservation::new(&second));
    refused.add(400).unwrap();
    other.add(390).unwrap();
    refused.add(20).unwrap_err();
    // The first work has 400 bytes still, but is about to release them. An eighth of the budget is available before it does.
    other.add(110).unwrap();
    assert_eq!(total.reserved_bytes(), 900);
    other.add(1).unwrap_err();
    drop((refused, other));
    drop((first, second));
    assert_eq!((total.reserved_bytes(), total.releasing()), (0, 0));
    let third = budget(10, 800, &total);
    Reservation::new(&third).add(801).unwrap_err();
    drop(third);
    Reservation::new(&budget(10, 800, &total)).add(800).unwrap();
}

#[test]
fn work_that_finds_no_room_in_the_total_is_refused_with_a_reason() {
    let total = total(10, 100);
    let (first, second) = (budget(10, 100, &total), budget(10, 100, &total));
    let mut reserved = Reservation::new(&first);
    reserved.add(70).unwrap();
    let error = Reservation::new(&second).add(40).unwrap_err().to_string();
    assert_eq!(
        error,
        "query would use 40 bytes while other queries use 70, more than max_total_bytes=100 allows; \
         retry when fewer queries run, or select fewer series, a shorter range or a longer step"
    );
    drop(reserved);
    Reservation::new(&second).add(100).unwrap();
    first.count_samples(6).unwrap();
    assert!(second.count_samples(6).unwrap_err().to_string().contains("max_total_samples=10"));
    drop(first);
    let third = budget(10, 100, &total);
    third.count_samples(4).unwrap();
}

#[test]
fn a_need_is_checked_without_being_counted() {
    let total = unlimited();
    let budget = budget(10, 100, &total);
    let mut reserved = Reservation::new(&budget);
    reserved.add(60).unwrap();
    budget.check_need(10, 100).unwrap();
    budget.check_room(40).unwrap();
    let error = budget.check_need(11, 0).unwrap_err().with_part("1:5: subquery of 11 steps");
    assert!(
        error.to_string().starts_with("1:5: subquery of 11 steps: query would use 11 samples"),
        "{error}"
    );
    assert_eq!(budget.check_room(41).unwrap_err().needed, 101);
    assert_eq!((budget.samples(), total.reserved_bytes()), (0, 60));
}
