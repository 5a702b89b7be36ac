//! Hooks of which there are too many to be told one by one.

use super::super::account::Unowned;
use super::super::{Instrument, What};

/// Ftrace hooks told one by one; a tracer hooks every function at once.
const HOOKS_MAX: usize = 32;
/// The same of hooks that stand out, which no tracer makes.
const OUT_MAX: usize = 256;

/// Many hooks of one kind as one. Those that stand out are told whatever the others are.
pub(super) fn thinned(hooks: Vec<Unowned>) -> Vec<Instrument> {
    let (out, plain): (Vec<_>, Vec<_>) = hooks.into_iter().partition(|one| one.stands_out);
    let mut kept: Vec<Instrument> = out.into_iter().map(|one| one.instrument).collect();
    let more = kept.split_off(OUT_MAX.min(kept.len()));
    let is_changing = |one: &Instrument| match &one.what {
        What::Ftrace { flags, .. } => flags.contains(" I"),
        _ => false,
    };
    if !more.is_empty() {
        let letters = if more.iter().any(is_changing) { " I" } else { "" };
        kept.push(many("more functions with hooks that stand out", more.len(), letters));
    }
    let mut plain: Vec<Instrument> = plain.into_iter().map(|one| one.instrument).collect();
    if plain.len() > HOOKS_MAX {
        plain = vec![many("many functions", plain.len(), "")];
    }
    kept.extend(plain);
    kept
}

/// `letters` as the kernel has them behind the count.
fn many(which: &str, count: usize, letters: &str) -> Instrument {
    let what =
        What::Ftrace { function: format!("({which})"), flags: format!("{count} of them{letters}") };
    Instrument { id: format!("ftrace {which}"), what, holders: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hooks(name: &str, count: usize, flags: &str, stands_out: bool) -> Vec<Unowned> {
        let hook = |at: usize| {
            let function = format!("{name}{at}");
            let id = format!("ftrace {function}");
            let what = What::Ftrace { function, flags: flags.to_owned() };
            Unowned { instrument: Instrument { id, what, holders: Vec::new() }, stands_out }
        };
        (0..count).map(hook).collect()
    }

    #[test]
    fn a_hook_that_stands_out_is_told_among_any_number_of_others() {
        let mut all = hooks("traced", 1000, "(1)", false);
        all.extend(hooks("replaced", 1, "(1) R I", true));
        let told = thinned(all);
        let forms: Vec<_> = told.iter().map(Instrument::form).collect();
        assert_eq!(forms, ["ftrace replaced0", "ftrace (many functions)"]);
        let What::Ftrace { flags, .. } = &told[0].what else { panic!() };
        assert_eq!(flags, "(1) R I");
    }

    #[test]
    fn hooks_that_stand_out_are_bounded_and_the_rest_keeps_what_they_may() {
        let told = thinned(hooks("replaced", OUT_MAX + 5, "(1) R I", true));
        assert_eq!(told.len(), OUT_MAX + 1);
        let What::Ftrace { flags, .. } = &told[OUT_MAX].what else { panic!() };
        assert_eq!(flags, "5 of them I");
        assert_eq!(thinned(hooks("traced", HOOKS_MAX, "(1)", false)).len(), HOOKS_MAX);
    }
}
