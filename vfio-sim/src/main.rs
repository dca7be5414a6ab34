use vfio_sim::{replay::replay, trace::Trace};
fn main() {
    let (mut n, mut calls, mut d) = (0, 0, 0);
    for path in std::env::args().skip(2) {
        let trace = match Trace::load(path.as_ref()) {
            Ok(t) => t,
            Err(e) => {
                println!("{path}: {e}");
                continue;
            }
        };
        let outcome = replay(&trace, trace.kernel).unwrap();
        n += 1;
        calls += outcome.calls;
        d += outcome.differences.len();
        for note in &outcome.notes {
            println!("{path}: {note}");
        }
        for x in outcome.differences.iter().take(3) {
            println!("{path}: {x:#?}");
        }
    }
    println!("{n} traces, {calls} calls, {d} differences");
}
