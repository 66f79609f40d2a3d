//! Both sessions together, over links that break.

use lastword_core::protocol::Role;
use lastword_core::protocol::replica::{Input, SyncStatus};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::{Kind, World, workspace};

#[derive(Debug, Clone, Copy)]
enum Step {
    Write(Kind),
    Store,
    Hear,
    Read,
    HearOutbox,
    News,
    Connect,
    Up,
    Down,
    Decide,
    Answer,
    Pass(u64),
    Cut,
    /// The app stops and starts syncing.
    Restart,
    /// The app lets the workspace go and takes it back.
    Reattach,
}

fn step() -> impl Strategy<Value = Step> {
    use prop::sample::select;
    let kind =
        select(vec![Kind::Good, Kind::Good, Kind::Good, Kind::Bad, Kind::Follows, Kind::Later]);
    prop_oneof![
        4 => kind.prop_map(Step::Write),
        6 => Just(Step::Store),
        6 => Just(Step::Hear),
        6 => Just(Step::Read),
        6 => Just(Step::HearOutbox),
        6 => Just(Step::News),
        6 => Just(Step::Up),
        6 => Just(Step::Down),
        4 => Just(Step::Decide),
        6 => Just(Step::Answer),
        4 => Just(Step::Connect),
        2 => select(vec![1, 60, 500, 4000]).prop_map(Step::Pass),
        1 => Just(Step::Cut),
        1 => select(vec![Step::Restart, Step::Reattach]),
    ]
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Write(kind) => world.write(kind),
        Step::Store => drop(world.store()),
        Step::Hear => drop(world.hear()),
        Step::Read => drop(world.read()),
        Step::HearOutbox => drop(world.hear_outbox()),
        Step::News => drop(world.news()),
        Step::Connect => drop(world.connect()),
        Step::Up => drop(world.deliver_up()),
        Step::Down => drop(world.deliver_down()),
        Step::Decide => drop(world.decide()),
        Step::Answer => drop(world.answer()),
        Step::Pass(ms) => world.pass(ms),
        Step::Cut => world.cut(),
        Step::Restart => {
            world.tell(Input::Stop);
            world.tell(Input::Start);
        }
        Step::Reattach => {
            world.tell(Input::Detach { workspace: workspace() });
            world.attach();
        }
    }
}

proptest! {
    #![proptest_config(crate::cases())]

    /// I4, I19, I28: whatever is cut, delayed, refused or put off, each batch is decided exactly
    /// once and in order, and the device learns every decision. The world asserts on the way that
    /// pushes are contiguous, that nothing is pushed after a refusal until Resume, that no more
    /// than 32 batches and 8 pages are in flight, and that a healthy device never looks forked.
    #[test]
    fn model_of_both_sessions(steps in vec(step(), 1..160)) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| take(&mut world, step));
        world.settle();
        world.assert_all_is_decided();
    }
}

/// I28: a live link drains the outbox in order, more batches than fit on the way, too.
#[test]
fn a_long_outbox_drains_in_order() {
    let mut world = World::new();
    (0..100).for_each(|_| world.write(Kind::Good));
    world.settle();
    world.assert_all_is_decided();
    assert_eq!(world.server.decisions.len(), 100);
}

/// R1.2, section 4: a permanent refusal halts the stream, the rest goes on renumbered.
#[test]
fn a_refusal_is_buried_and_the_rest_goes_on() {
    let mut world = World::new();
    for kind in [Kind::Good, Kind::Bad, Kind::Follows, Kind::Good, Kind::Bad, Kind::Good] {
        world.write(kind);
    }
    world.settle();
    world.assert_all_is_decided();
    assert_eq!(world.device.dead.len(), 3);
}

/// Section 4: a batch that is put off comes again after the wait, the same one, with all that
/// follows it.
#[test]
fn a_batch_that_is_put_off_comes_again() {
    let mut world = World::new();
    for kind in [Kind::Good, Kind::Later, Kind::Good, Kind::Good] {
        world.write(kind);
    }
    let begin = world.now;
    world.settle();
    world.assert_all_is_decided();
    assert!(world.now >= begin + 3000, "the wait is kept");
}

/// Section 4: a viewer's outbox is frozen: nothing is decided, nothing is lost, and it is asked
/// again later.
#[test]
fn a_viewers_outbox_waits() {
    let mut world = World::new();
    world.server.role = Role::Viewer;
    world.write(Kind::Good);
    for _ in 0..500 {
        let _ = world.connect() | world.deliver_up() | world.decide();
        let _ = world.answer() | world.deliver_down() | world.store() | world.hear();
        let _ = world.read() | world.hear_outbox() | world.news();
    }
    assert!(world.server.decisions.is_empty());
    assert_eq!(world.device.outbox.len(), 1);
    let SyncStatus::Held { head, why, .. } = &world.device.status else {
        panic!("the user is not told why it waits: {:?}", world.device.status)
    };
    assert_eq!(*head, world.server.head, "reading goes on");
    assert!(why.contains("viewer"), "{why}");
    assert_eq!(world.device.wake_at, Some(world.now + 60_000));
    world.server.role = Role::Editor;
    world.cut();
    world.settle();
    world.assert_all_is_decided();
}
