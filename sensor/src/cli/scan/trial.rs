//! What `halfsecond scan --self-test` does to one child: changes one thing after the other, looks
//! whether it is found, and takes it back.

use std::time::Duration;

use super::code_swap;
use super::mutate::{Area, Target};
use super::not_checked;
use super::self_test::{CODE, FALSE_ADDRESS, Rows, SWAPPED, UNLINKED, VDSO, refused};
use crate::cli::Failure;
use crate::verify::{
    Limits, Listed, Place, Places, Report, SlotKind, StrayKind, Verifier, VerifyError,
};

/// Slots of each kind that are changed in each child, spread over all of them.
const SAMPLE: usize = 4;

/// A child with who looks at it.
pub(super) struct Trial {
    target: Target,
    /// For slots.
    slots: Verifier,
    /// For code and the loader's list, which take longer.
    code: Verifier,
    places: Places,
    areas: Vec<Area>,
}

impl Trial {
    /// A child that is not clean to begin with would prove nothing.
    pub(super) fn begin(target: Target, limits: Limits) -> Result<Self, Failure> {
        let mut code = Verifier::new(Limits { recheck_after: Duration::ZERO, ..limits });
        let report = code.check(target.pid()).map_err(not_checked)?;
        if !report.is_clean() || !report.settled {
            let program = target.program.display();
            let text = format!("{program} is changed before the test begins; run halfsecond scan");
            let what = "the self-test cannot begin".to_owned();
            return Err(Failure::Internal { what, source: text.into() });
        }
        let limits = Limits { recheck_after: Duration::ZERO, text: false, ..limits };
        let mut slots = Verifier::new(limits);
        // All there is, whatever is looked at.
        let all = Limits { depth: crate::verify::Depth::Full, ..limits };
        let places = Verifier::new(all).places(target.pid()).map_err(not_checked)?;
        let areas = target.areas().map_err(|error| refused("read the maps of the child", error))?;
        slots.check(target.pid()).map_err(not_checked)?;
        Ok(Self { target, slots, code, places, areas })
    }

    pub(super) fn program(&self) -> String {
        self.target.program.display().to_string()
    }

    /// Every kind of change there is.
    pub(super) fn run(&mut self, rows: &mut Rows) -> Result<(), Failure> {
        for kind in SlotKind::ALL {
            let slots = self.places.slots.iter().filter(|place| place.kind == kind);
            let slots: Vec<Place> = slots.cloned().collect();
            let step = (slots.len() / SAMPLE).max(1);
            for place in slots.iter().step_by(step).take(SAMPLE) {
                self.change_slot(place, rows)?;
            }
        }
        self.change_code(CODE, |area| area.path.starts_with('/'), rows)?;
        self.change_code(VDSO, |area| area.path == "[vdso]", rows)?;
        let cannot = |error| refused("let the child wait", error);
        self.target.resume().map_err(cannot)?;
        for listed in &self.places.listed.clone() {
            self.unlink(listed, rows)?;
            self.move_away(listed, rows)?;
        }
        self.swap_code(rows)
    }

    /// Four values one after the other, and each time the old one again.
    fn change_slot(&mut self, place: &Place, rows: &mut Rows) -> Result<(), Failure> {
        let cannot = |error| refused("change the memory of the child", error);
        let old = self.target.word(place.addr, place.width).map_err(cannot)?;
        for (what, value) in self.values(place, old) {
            self.target.set_word(place.addr, place.width, value).map_err(cannot)?;
            let report = self.slots.check(self.target.pid());
            self.target.set_word(place.addr, place.width, old).map_err(cannot)?;
            let found = judged(report, |report| {
                report.mismatches.iter().any(|one| one.slot_addr == place.addr)
            })?;
            let told = || format!("{:#x} of {}: {what}", place.addr, place.module);
            rows.add(place.kind.key(), found, told);
        }
        Ok(())
    }

    /// What an attacker might write: another function, a place inside the right one, memory
    /// without a file, the stack.
    fn values(&self, place: &Place, old: u64) -> [(&'static str, u64); 4] {
        let area = |fits: fn(&Area) -> bool| self.areas.iter().find(|area| fits(area));
        let start = |found: Option<&Area>| found.map_or(0x1000, |area| area.start + 0x10);
        let other = self.areas.iter().find(|area| area.is_code() && area.path != place.module);
        let function = self.places.system.filter(|system| *system != old);
        let memory = start(area(|area| area.path == "[heap]" || area.path.is_empty()));
        [
            ("another function", function.unwrap_or_else(|| start(other))),
            ("inside the right one", old.wrapping_add(1)),
            ("memory without a file", memory),
            ("the stack", start(area(|area| area.path == "[stack]"))),
        ]
    }

    /// One byte in the middle of each area of code, and the old one again.
    fn change_code(
        &mut self,
        what: &'static str,
        fits: fn(&Area) -> bool,
        rows: &mut Rows,
    ) -> Result<(), Failure> {
        let cannot = |error| refused("change the code of the child", error);
        for area in self.areas.iter().filter(|area| area.is_code() && fits(area)) {
            let addr = area.start + (area.end - area.start) / 2;
            let old = self.target.read(addr, 1).map_err(cannot)?;
            let new: Vec<u8> = old.iter().map(|byte| byte ^ 0xff).collect();
            self.target.write(addr, &new).map_err(cannot)?;
            let report = self.code.check(self.target.pid());
            self.target.write(addr, &old).map_err(cannot)?;
            let found = judged(report, |report| {
                let mut patches = report.text.unexplained();
                patches.any(|patch| patch.addr <= addr && addr - patch.addr < patch.length)
            })?;
            rows.add(what, found, || format!("{addr:#x} of {}", area.path));
        }
        Ok(())
    }

    /// Takes a module out of the loader's list (`l_next` of the one before, `l_prev` of the one
    /// behind), and puts it back.
    fn unlink(&mut self, listed: &Listed, rows: &mut Rows) -> Result<(), Failure> {
        let cannot = |error| refused("change the list of the child's loader", error);
        let width = self.places.width;
        let word = |number: u64| listed.entry + number * width as u64;
        let next = self.target.word(word(3), width).map_err(cannot)?;
        let before = self.target.word(word(4), width).map_err(cannot)?;
        let set = |entry: u64, number: u64, value: u64| {
            // The list ends here.
            if entry == 0 {
                return Ok(());
            }
            self.target.set_word(entry + number * width as u64, width, value)
        };
        set(before, 3, next).and_then(|()| set(next, 4, before)).map_err(cannot)?;
        let report = self.code.check(self.target.pid());
        set(before, 3, listed.entry).and_then(|()| set(next, 4, listed.entry)).map_err(cannot)?;
        let found = judged(report, |report| has(report, StrayKind::Unlisted, &listed.module))?;
        rows.add(UNLINKED, found, || listed.module.clone());
        Ok(())
    }

    /// Falsifies a module's address in the loader's list (`l_addr`) by a page, and corrects it.
    fn move_away(&mut self, listed: &Listed, rows: &mut Rows) -> Result<(), Failure> {
        let cannot = |error| refused("change the list of the child's loader", error);
        let width = self.places.width;
        let base = self.target.word(listed.entry, width).map_err(cannot)?;
        self.target.set_word(listed.entry, width, base + 0x1000).map_err(cannot)?;
        let report = self.code.check(self.target.pid());
        self.target.set_word(listed.entry, width, base).map_err(cannot)?;
        let found = judged(report, |report| has(report, StrayKind::Misplaced, &listed.module))?;
        rows.add(FALSE_ADDRESS, found, || listed.module.clone());
        Ok(())
    }

    /// Memory without a file where a page of code was. The child stays like that, so this is last.
    fn swap_code(&mut self, rows: &mut Rows) -> Result<(), Failure> {
        if self.places.width == 0 {
            return Ok(());
        }
        let cannot = |error| refused("replace code of the child", error);
        let Some((path, addr)) = code_swap::swap(&mut self.target, &self.areas).map_err(cannot)?
        else {
            rows.skip(SWAPPED, "the instructions of this machine are not known");
            return Ok(());
        };
        let report = self.code.check(self.target.pid());
        let found = judged(report, |report| has(report, StrayKind::Replaced, &path))?;
        rows.add(SWAPPED, found, || format!("{addr:#x} of {path}"));
        Ok(())
    }
}

fn has(report: &Report, kind: StrayKind, path: &str) -> bool {
    report.text.strays.iter().any(|stray| {
        stray.kind == kind && stray.module.as_ref().is_some_and(|module| module.path == path)
    })
}

/// A check that fails has found nothing; one that is not allowed tells nothing of the others.
fn judged(
    report: Result<Report, VerifyError>,
    found: impl FnOnce(&Report) -> bool,
) -> Result<bool, Failure> {
    match report {
        Ok(report) => Ok(found(&report)),
        Err(error @ VerifyError::Permission { .. }) => Err(not_checked(error)),
        Err(_) => Ok(false),
    }
}
