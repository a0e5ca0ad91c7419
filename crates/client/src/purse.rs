use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use domain::{Amounts, Source, Spending, Ticket, Unit};
use strongroom_proto::v1;

use crate::{
    LeaseError, PurseKey, convert,
    refusals::Refusals,
    slice::{Slice, SliceId},
};

/// What one virtual key may spend in this process without asking: its slices of budgets.
#[derive(Debug)]
pub(crate) struct Purse {
    pub(crate) key: PurseKey,
    /// Held by whoever asks the broker, so that one does and the others wait for what comes of it.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
    /// Calls that wait for a slice.
    waiting: AtomicU64,
    state: Mutex<State>,
}

/// A call that waits, until it is dropped.
pub(crate) struct Waits<'a>(&'a AtomicU64);

#[derive(Debug, Default)]
struct State {
    slices: Vec<Slice>,
    /// What was drawn before this was drawn under rules that may be others by now.
    as_of: Duration,
    /// When the broker last said that nothing is limited, and until when that is believed.
    unlimited: Option<(Duration, Duration)>,
    last_use: Duration,
    last_draw: Duration,
    /// For how many calls the next slice is asked for.
    calls: u64,
    refusals: Refusals,
    /// What was refused before this might be granted now.
    room_since: Duration,
    /// What was last said of each limit, and when.
    views: Vec<(v1::LimitView, Duration)>,
    /// Slices that were asked for without an answer, and when: the broker may have granted them.
    unanswered: Vec<(SliceId, Duration)>,
}

/// What one call holds of its key's budgets. When it is dropped, nobody knows what the call took.
#[must_use = "a call that is not ended holds its part until the slice expires"]
pub struct Held(Option<Hold>);

struct Hold {
    purse: Arc<Purse>,
    slice: SliceId,
    ticket: Ticket,
    /// The most that the call can come to.
    need: Amounts,
    limited: Vec<Unit>,
}

/// How a limit stands, as far as this process knows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LimitState {
    /// What it counts.
    pub unit: Unit,
    /// The limit.
    pub cap: u64,
    /// What is left of it for calls to come.
    pub left: u64,
    /// When there will be more; nothing is known, or waiting does not help, when absent.
    pub renews_after: Option<Duration>,
    /// Whether it is a rate limit of the virtual key, and not a budget.
    pub is_rate: bool,
}

impl Purse {
    pub(crate) fn new(key: PurseKey) -> Self {
        Self {
            key,
            turn: Arc::default(),
            waiting: AtomicU64::new(0),
            state: Mutex::new(State { calls: 1, ..State::default() }),
        }
    }

    /// Counts a call as waiting.
    pub(crate) fn wait(&self) -> Waits<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waits(&self.waiting)
    }

    /// Reserves a call's worst case in a slice at hand. `as_of` is when the call's lease was asked
    /// for: the rules may have changed then, so nothing begins in what was drawn before.
    pub(crate) fn begin(
        self: &Arc<Self>,
        need: &Amounts,
        as_of: Duration,
        now: Duration,
    ) -> Option<Held> {
        let mut state = self.state();
        state.last_use = state.last_use.max(now);
        if as_of > state.as_of {
            state.as_of = as_of;
            state.retire();
        }
        if state.unlimited.is_some_and(|(said, until)| said >= state.as_of && now < until) {
            return Some(Held::nothing());
        }
        let begun = state.slices.iter_mut().find_map(|slice| {
            let ticket = slice.begin(need, now)?;
            Some((slice.id, ticket, slice.limited().to_vec()))
        });
        let (slice, ticket, limited) = begun?;
        Some(Held(Some(Hold { purse: Arc::clone(self), slice, ticket, need: *need, limited })))
    }

    /// The no that was heard a moment ago, if it is one to this need as well.
    pub(crate) fn refused(&self, need: &Amounts, now: Duration) -> Option<LeaseError> {
        self.state().refusals.of(need, now)
    }

    /// Takes note of a no to what was asked for at `asked`.
    pub(crate) fn refuse(&self, error: &LeaseError, asked: Duration, now: Duration) {
        let mut state = self.state();
        let Some(limit) = error.limit().filter(|_| asked >= state.room_since) else { return };
        state.refusals.keep(error, &limit, now);
        let is_other = |it: &v1::LimitView| (it.unit, &it.budget) != (limit.unit, &limit.budget);
        state.views.retain(|(view, _)| is_other(view));
        state.views.push((limit, now));
    }

    /// How much to ask for, so that a slice lasts for some seconds of what calls take now.
    pub(crate) fn wanted(&self, need: &Amounts, now: Duration) -> Amounts {
        let mut state = self.state();
        let lasted = now.saturating_sub(state.last_draw);
        state.calls = if lasted < SHORT {
            state.calls.saturating_mul(2).min(MOST_CALLS)
        } else if lasted > LONG {
            (state.calls / 4).max(1)
        } else {
            state.calls
        };
        state.last_draw = now;
        let calls = state.calls.max(self.waiting.load(Ordering::Relaxed));
        need.each(|_, amount| amount.saturating_mul(calls))
    }

    /// Takes note that a slice is asked for. Until it is answered, it may be there.
    pub(crate) fn asking(&self, id: SliceId, now: Duration) {
        self.state().unanswered.push((id, now));
    }

    /// The broker said no to this slice: there is none.
    pub(crate) fn answered(&self, id: &SliceId) {
        self.state().unanswered.retain(|(asked, _)| asked != id);
    }

    /// Slices that may be there, and have been asked for long enough ago to ask once more.
    pub(crate) fn lost_answers(&self, now: Duration) -> Vec<SliceId> {
        let mut state = self.state();
        state.unanswered.retain(|(_, asked)| now.saturating_sub(*asked) < LONGEST_SLICE);
        let is_due = |asked: Duration| now.saturating_sub(asked) > ANSWERS_WITHIN;
        state.unanswered.iter().filter(|(_, asked)| is_due(*asked)).map(|(id, _)| *id).collect()
    }

    /// Puts a slice in.
    pub(crate) fn put(
        &self,
        id: SliceId,
        wire: &v1::Allowance,
        wanted: &Amounts,
        (drawn_at, now): (Duration, Duration),
    ) {
        let mut state = self.state();
        state.unanswered.retain(|(asked, _)| *asked != id);
        if state.slices.iter().any(|slice| slice.id == id) {
            return;
        }
        state.views = wire.limits.iter().map(|view| (view.clone(), now)).collect();
        let mut slice = Slice::of(id, wire, wanted, drawn_at);
        if wire.limited.is_empty() {
            let ttl = wire.ttl.and_then(convert::duration).unwrap_or_default();
            state.unlimited = Some((drawn_at, drawn_at.saturating_add(ttl)));
            return;
        }
        state.unlimited = None;
        slice.is_retired = drawn_at < state.as_of;
        state.slices.push(slice);
    }

    /// Gives back all that no call holds; whether there was any.
    pub(crate) fn give_back(&self) -> bool {
        let mut state = self.state();
        state.slices.iter_mut().fold(false, |any, slice| slice.give_back() | any)
    }

    /// What is to be told of its slices, after giving back what is of no use here: what has lain idle,
    /// what is near a limit while nobody wants it, and what no call can begin in.
    pub(crate) fn reports(&self, now: Duration) -> Vec<v1::Settlement> {
        let is_wanted = self.waiting.load(Ordering::Relaxed) > 0;
        let mut state = self.state();
        let unused = now.saturating_sub(state.last_use);
        for slice in &mut state.slices {
            let after = if slice.is_tight { TIGHT_IDLE } else { IDLE };
            let is_idle = !is_wanted && unused >= after;
            if is_idle || slice.is_retired || slice.has_ended(now) {
                slice.give_back();
            }
        }
        state.slices.retain_mut(|slice| !slice.is_over(now));
        state.slices.iter_mut().filter_map(Slice::report).collect()
    }

    /// The broker has this settlement, or says that it can never be.
    pub(crate) fn taken(&self, id: &[u8], sequence: u64, now: Duration) {
        let mut state = self.state();
        let slice = state.slices.iter_mut().find(|slice| slice.id[..] == *id);
        if slice.is_some_and(|slice| slice.taken(sequence)) {
            state.room_since = now;
            state.refusals.clear();
        }
    }

    /// Whether nothing is known or held for the key that would be missed.
    pub(crate) fn is_empty(&self, now: Duration) -> bool {
        let state = self.state();
        let unused = now.saturating_sub(state.last_use) > LONG;
        unused && state.slices.is_empty() && state.unanswered.is_empty()
    }

    /// How the limits stand.
    pub(crate) fn limits(&self, now: Duration) -> Vec<LimitState> {
        let state = self.state();
        let known = |(view, at): &(v1::LimitView, Duration)| {
            let since = now.saturating_sub(*at);
            let unit = convert::unit(view.unit())?;
            let free = state.slices.iter().map(|slice| slice.free().of(unit));
            let here = free.fold(0, u64::saturating_add);
            let renews_after = view.renews_after.and_then(convert::duration);
            Some(LimitState {
                unit,
                cap: view.cap,
                left: view.left.saturating_add(here).min(view.cap),
                renews_after: renews_after.map(|it| it.saturating_sub(since)),
                is_rate: view.is_rate,
            })
        };
        state.views.iter().filter_map(known).collect()
    }

    fn with_slice(&self, id: &SliceId, work: impl FnOnce(&mut Slice)) {
        if let Some(slice) = self.state().slices.iter_mut().find(|slice| slice.id == *id) {
            work(slice);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl State {
    /// Calls that hold a part of the slices go on; none begins in them.
    fn retire(&mut self) {
        let as_of = self.as_of;
        for slice in &mut self.slices {
            slice.is_retired |= slice.drawn_at < as_of;
        }
        self.room_since = self.room_since.max(as_of);
        self.refusals.clear();
        self.views.clear();
    }
}

impl Held {
    /// Of a call that nothing limits.
    pub fn nothing() -> Self {
        Self(None)
    }

    /// The slice that the call counts in.
    pub fn allowance_id(&self) -> Option<[u8; 16]> {
        self.0.as_ref().map(|hold| hold.slice)
    }

    /// Whether some limit counts this unit.
    pub fn limits(&self, unit: Unit) -> bool {
        self.0.as_ref().is_some_and(|hold| hold.limited.contains(&unit))
    }

    /// How the limits that the call counts in stand, at this moment of the clock's `elapsed`.
    pub fn states(&self, now: Duration) -> Vec<LimitState> {
        self.0.as_ref().map(|hold| hold.purse.limits(now)).unwrap_or_default()
    }

    /// Settles the call with what it came to, on a credential of this source.
    pub fn end(mut self, spent: &Spending, source: Source) {
        if let Some(Hold { purse, slice, ticket, .. }) = self.0.take() {
            purse.with_slice(&slice, |slice| slice.end(ticket, spent, source));
        }
    }

    /// Settles a call that was not made.
    pub fn release(self) {
        // Nothing is spent, on whatever credential.
        self.end(&Spending::default(), Source::Byok);
    }

    /// Leaves held what may have been spent: nobody knows what the call took. It counts as a call, and
    /// as its worst case where nothing but a rate limit counts tokens: a minute forgets it.
    pub fn lose(mut self, source: Source) {
        self.give_up(source);
    }

    fn give_up(&mut self, source: Source) {
        if let Some(Hold { purse, slice, ticket, need, .. }) = self.0.take() {
            purse.with_slice(&slice, |slice| slice.lose(ticket, &need, source));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // On whose credential it was to be is not known any more.
        self.give_up(Source::Byok);
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.0.as_ref().map(|hold| &hold.ticket)).finish()
    }
}

/// A slice that is used up faster than this was too small for the traffic of now.
const SHORT: Duration = Duration::from_secs(2);
/// One that lasts longer was too large.
const LONG: Duration = Duration::from_secs(10);
const MOST_CALLS: u64 = 256;
/// Others may have use for what nobody here has had for so long.
const IDLE: Duration = Duration::from_secs(2);
/// The same near a limit.
const TIGHT_IDLE: Duration = Duration::from_millis(150);
/// No slice is longer: what may have been granted before has expired.
const LONGEST_SLICE: Duration = Duration::from_mins(5);
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
