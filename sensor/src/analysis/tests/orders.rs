//! What persons ask of the baselines while the sensor runs: forget, import, approve.

use std::collections::BTreeMap;

use super::*;
use crate::baseline::{
    Act, Answer, Approval, Done, Import, Object, Orders, Placed, Sent, State, Terms, WriterLock,
};

const LONG: Duration = Duration::from_mins(1);

/// A sensor on a store, and the way to it.
struct Running {
    bench: Bench,
    orders: Orders,
    dir: tempfile::TempDir,
}

impl Running {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lock = WriterLock::take(dir.path(), LONG).unwrap().unwrap();
        let (store, _) = Store::open(dir.path());
        let bench = Bench::with(&Config::default(), store);
        Self { bench, orders: Orders::new(dir.path(), lock), dir }
    }

    fn ask(&mut self, act: Act) -> Answer {
        let placed = Placed::leave(self.dir.path(), act).unwrap();
        let told = self.bench.analysis.obey(&self.orders, Timestamp::UNIX_EPOCH);
        assert_eq!(told.len(), 1, "{told:?}");
        self.bench.run();
        let Sent::Answered(answer) = placed.wait(LONG).unwrap() else { panic!("no answer") };
        answer
    }

    fn approve(&mut self, object: Object) -> Answer {
        let (who, why) = ("alice".to_owned(), "ticket 42".to_owned());
        let approval = Approval { time: Timestamp::UNIX_EPOCH, who, why, object };
        self.ask(Act::Approve { subject: sshd(), approvals: vec![approval] })
    }

    fn module(&self, path: &str) -> ModuleId {
        let shared = &mut self.bench.world.fake.0.lock().unwrap();
        ModuleId { path: path.to_owned(), build: build(shared.inode(Path::new(path))) }
    }

    fn standing(&mut self) -> State {
        let criteria = crate::baseline::Criteria {
            observations: 20,
            run_length: 1_000_000,
            guarded: true,
            unit: "logins",
        };
        self.bench.analysis.baseline(&sshd()).standing(&criteria).state
    }
}

fn sshd() -> String {
    format!("{SSHD_PATH} {}", build(1))
}

#[test]
fn what_is_forgotten_is_told_again_by_the_kernel_side_and_learned_anew() {
    let mut running = Running::new();
    running.bench.learn(Tree::V9);
    let before = running.bench.analysis.baseline(&sshd()).clone();
    assert!(before.settled_at.is_some());
    assert_eq!(running.standing(), State::Settled);
    let answer = running.ask(Act::Forget { subject: sshd() });
    assert_eq!(answer.done, Some(Done::Forgotten { was: true }));
    assert!(running.bench.analysis.baseline(&sshd()).is_blank());
    assert_eq!(running.standing(), State::Learning);
    running.bench.learn(Tree::V9);
    let again = running.bench.analysis.baseline(&sshd()).clone();
    let paths = |one: &Baseline| -> std::collections::BTreeSet<String> {
        one.libraries.iter().map(|(module, _)| module.path.clone()).collect()
    };
    assert_eq!((paths(&again), again.starts), (paths(&before), before.starts));
    assert_eq!(running.standing(), State::Settled);
}

#[test]
fn an_imported_baseline_is_of_use_at_the_first_login() {
    let mut golden = Bench::new();
    golden.learn(Tree::V9);
    let learned = golden.analysis.baseline(&sshd()).clone();
    let mut fresh = Running::new();
    let import = Import {
        time: Timestamp::now(),
        host: "golden".to_owned(),
        signer: Some("ed25519:00".to_owned()),
        forced: false,
    };
    let baselines: BTreeMap<_, _> = [(sshd(), learned)].into();
    let answer = fresh.ask(Act::Import { import, terms: Terms::default(), baselines });
    let Some(Done::Imported { subjects }) = answer.done else { panic!("{answer:?}") };
    assert!(subjects[&sshd()].new, "{subjects:?}");
    assert_eq!(fresh.standing(), State::Settled);
    fresh.bench.login(&Login::new("publickey"));
    fresh.bench.login(&Login::new("password"));
    assert_eq!(fresh.bench.fired(), Vec::<&str>::new());
    let mut login = Login::new("publickey").with_evil(0);
    login.caller = PathBuf::from(SSHD_PATH);
    fresh.bench.login(&login);
    assert_eq!(fresh.bench.fired(), ["library_unexpected"]);
}

#[test]
fn an_approved_library_is_silent_and_a_slot_that_leads_into_it_is_not() {
    let mut running = Running::new();
    running.bench.learn(Tree::V9);
    let module = running.module(EVIL);
    let caller = |module| Object::Caller { function: "RSA_public_decrypt".to_owned(), module };
    let refused = running.approve(caller(module.clone())).refused.unwrap();
    assert!(refused.contains("approve the library first"), "{refused}");
    let answer = running.approve(Object::Library { module: module.clone() });
    assert_eq!(answer.done, Some(Done::Approved { count: 1 }));
    let mut login = Login::new("publickey").with_evil(0);
    login.caller = PathBuf::from(SSHD_PATH);
    running.bench.login(&login);
    assert_eq!(running.bench.fired(), Vec::<&str>::new());
    // It calls the guarded function: foreign until that is approved as well.
    let foreign = Login::new("publickey").with_evil(0);
    running.bench.login(&foreign);
    assert_eq!(running.bench.fired(), ["foreign_caller"]);
    running.approve(caller(module));
    let count = |running: &Running| {
        running.bench.findings.iter().find(|(id, _)| *id == "foreign_caller").unwrap().1
    };
    let before = count(&running);
    running.bench.login(&foreign);
    assert_eq!(count(&running), before);
    // Nothing that was approved covers a slot.
    running.bench.attack(0, false, Tree::V9);
    assert!(running.bench.fired().contains(&"got_redirected"), "{:?}", running.bench.fired());
}
