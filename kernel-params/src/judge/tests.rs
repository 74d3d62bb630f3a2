use super::*;
use crate::goal::Profile;

const GOAL: Goal = Goal { profile: Profile::Latency, connections: 1_000_000, rate: 1000 };

fn parameter(rest: &str) -> Parameter {
    let text = format!(
        "[[parameter]]\nname = 'a.b'\nkind = 'sysctl'\ndefault = '7'\ndocumented = 'x'\nwhy = 'x.'\n\
         risk = 'x.'\nundo = 'x.'\n{rest}"
    );
    crate::parameter::parse("test.toml", &text).unwrap().remove(0)
}

fn judged_as(rest: &str, actual: &str) -> Finding {
    let variables = GOAL.variables(&Hardware { cores: 8, ..Hardware::default() });
    judged(&parameter(rest), &GOAL, &variables, "a.b", "", actual).unwrap()
}

fn proposal(wish: &str, actual: &str) -> Option<String> {
    let rest = format!("[[parameter.want]]\nprofiles = ['latency']\n{wish}");
    judged_as(&rest, actual).proposed
}

#[test]
fn numbers_are_raised_or_lowered_only_where_they_have_to_be() {
    assert_eq!(proposal("at_least = 'connections / 1000'", "999"), Some("1000".into()));
    assert_eq!(proposal("at_least = 'connections / 1000'", "1000"), None);
    assert_eq!(proposal("at_least = '5'", "max"), None);
    assert_eq!(proposal("at_most = '5'", "6"), Some("5".into()));
    assert_eq!(proposal("at_most = '5'", "-1"), None);
    assert_eq!(proposal("exactly = '1'", "1"), None);
    assert_eq!(proposal("exactly = 'performance'", "powersave"), Some("performance".into()));
}

#[test]
fn words_that_nobody_asked_about_stay() {
    assert_eq!(proposal("at_least = ['_', '_', '30']", "1\t2\t3"), Some("1 2 30".into()));
    assert_eq!(proposal("at_least = ['_', '_', '3']", "1\t2\t3"), None);
    let range = "at_most = ['10240', '_']\nat_least = ['_', '65000']";
    assert_eq!(proposal(range, "32768 60999"), Some("10240 65000".into()));
    assert_eq!(proposal(range, "1024 65535"), None);
    assert_eq!(proposal("at_least = ['max', '_']", "200000 100000"), Some("max 100000".into()));
}

#[test]
fn a_proposal_stays_within_what_the_kernel_takes() {
    let rest =
        "range = [1, 500]\n[[parameter.want]]\nprofiles = ['latency']\nat_least = 'connections'";
    assert_eq!(judged_as(rest, "100").proposed, Some("500".into()));
    assert_eq!(judged_as(rest, "500").proposed, None);
}

#[test]
fn ports_are_added_to_a_list_and_found_in_its_ranges() {
    assert_eq!(proposal("contains = ['1883', '8883']", ""), Some("1883,8883".into()));
    assert_eq!(
        proposal("contains = ['1883', '8883']", "22,1880-1890"),
        Some("22,1880-1890,8883".into())
    );
    assert_eq!(proposal("contains = ['1883']", "1880-1890"), None);
}

#[test]
fn of_several_good_values_the_first_is_proposed() {
    assert_eq!(proposal("one_of = ['fq', 'fq_codel']", "pfifo_fast"), Some("fq".into()));
    assert_eq!(proposal("one_of = ['fq', 'fq_codel']", "fq_codel"), None);
}

#[test]
fn another_profile_has_no_opinion() {
    let rest = "[[parameter.want]]\nprofiles = ['throughput']\nexactly = '1'";
    let found = judged_as(rest, "0");
    assert_eq!((found.verdict, found.proposed), (Verdict::Good, None));
}

#[test]
fn a_hazard_bites_by_value_and_by_bound_and_proposes_the_default() {
    let below = "[[parameter.hazard]]\nword = 1\nbelow = 5\nwhy = 'small.'";
    assert_eq!(judged_as(below, "1 4 9").hazards, ["small."]);
    assert_eq!(judged_as(below, "1 5 9").verdict, Verdict::Good);
    assert_eq!(judged_as(below, "1").verdict, Verdict::Good);
    let above = "[[parameter.hazard]]\nabove_formula = 'cores * 2'\nwhy = 'large.'";
    let found = judged_as(above, "17");
    assert_eq!((found.verdict, found.proposed.as_deref()), (Verdict::Hazard, Some("7")));
    assert!(found.wants_change());
    assert_eq!(judged_as(above, "16").verdict, Verdict::Good);
}
