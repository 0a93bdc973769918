//! Hints and routes that hold for a block of code on one thread.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::Router;

/// Runs `block` with a hint that routers find with [`RouteRequest::hint`](crate::RouteRequest::hint): a tenant, the key
/// of a shard. Hints reach routers on this thread and nothing else; of several of one type the innermost counts.
pub fn with_hint<T>(value: impl Any + Send + Sync, block: impl FnOnce() -> T) -> T {
    let _end = Pushed::new(&HINTS, Rc::new(value));
    block()
}

/// Runs `block` with a router that is asked before all others, on this thread only. For tests, say.
pub fn with_routes<T>(router: impl Router, block: impl FnOnce() -> T) -> T {
    let _end = Pushed::new(&ROUTES, Rc::new(router));
    block()
}

/// A hint that holds until it is dropped, on this thread.
#[must_use = "the hint holds until this is dropped"]
pub struct HeldHint(#[expect(dead_code, reason = "its end counts")] Pushed<dyn Any>);

/// Sets a hint until the result is dropped: for scopes that have one of their own.
pub fn hold_hint(value: Rc<dyn Any>) -> HeldHint {
    HeldHint(Pushed::new(&HINTS, value))
}

thread_local! {
    /// How many blocks are open on this thread: most calls have none, and need not look further.
    static OPEN: Cell<u32> = const { Cell::new(0) };
    /// How many blocks there were.
    static BLOCKS: Cell<u64> = const { Cell::new(0) };
    static HINTS: RefCell<Stack<dyn Any>> = const { RefCell::new(Stack(None)) };
    static ROUTES: RefCell<Stack<dyn Router>> = const { RefCell::new(Stack(None)) };
}

/// The hints that hold now.
pub struct Hints {
    stack: Stack<dyn Any>,
    /// The types that were asked for and whether there was one, where somebody wants to know.
    asked: Option<RefCell<Vec<(&'static str, bool)>>>,
}

impl Hints {
    pub(super) fn current() -> Self {
        let stack = if OPEN.get() == 0 { Stack(None) } else { HINTS.with_borrow(Stack::clone) };
        Self { stack, asked: None }
    }

    /// The same, and what is asked for is written down.
    pub(super) fn watched() -> Self {
        Self { asked: Some(RefCell::default()), ..Self::current() }
    }

    pub(super) fn innermost<T: Any>(&self) -> Option<&T> {
        let found = self.stack.iter().find_map(|hint| hint.downcast_ref());
        if let Some(asked) = &self.asked {
            asked.borrow_mut().push((std::any::type_name::<T>(), found.is_some()));
        }
        found
    }

    /// What was asked for since the last call.
    pub(super) fn take_asked(&self) -> Vec<(&'static str, bool)> {
        self.asked.as_ref().map(RefCell::take).unwrap_or_default()
    }
}

/// Which hints hold now: 0 where there are none. Within one thread equal numbers mean the same hints.
pub fn hints_number() -> u64 {
    if OPEN.get() == 0 { 0 } else { HINTS.with_borrow(|hints| hints.0.as_ref().map_or(0, |node| node.serial)) }
}

/// The routers that are asked before all others, the innermost first.
pub(super) fn overrides() -> Stack<dyn Router> {
    if OPEN.get() == 0 { Stack(None) } else { ROUTES.with_borrow(Stack::clone) }
}

/// A list that shares its tail: cloning the current one costs no allocation, and a router may open blocks of its own.
pub struct Stack<T: ?Sized>(Option<Rc<Node<T>>>);

struct Node<T: ?Sized> {
    /// Which block it is: no two of a thread have one number.
    serial: u64,
    value: Rc<T>,
    outer: Stack<T>,
}

impl<T: ?Sized> Clone for Stack<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: ?Sized> Stack<T> {
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let mut at = self;
        std::iter::from_fn(move || {
            let node = at.0.as_ref()?;
            at = &node.outer;
            Some(&*node.value)
        })
    }
}

/// Takes the block's entry away again, also when the block panics.
pub struct Pushed<T: ?Sized + 'static> {
    stack: &'static std::thread::LocalKey<RefCell<Stack<T>>>,
    outer: Stack<T>,
}

impl<T: ?Sized + 'static> Pushed<T> {
    fn new(stack: &'static std::thread::LocalKey<RefCell<Stack<T>>>, value: Rc<T>) -> Self {
        let outer = stack.with_borrow(Stack::clone);
        let serial = BLOCKS.get() + 1;
        BLOCKS.set(serial);
        let node = Node { serial, value, outer: outer.clone() };
        stack.with_borrow_mut(|stack| *stack = Stack(Some(Rc::new(node))));
        OPEN.set(OPEN.get() + 1);
        Self { stack, outer }
    }
}

impl<T: ?Sized + 'static> Drop for Pushed<T> {
    fn drop(&mut self) {
        OPEN.set(OPEN.get() - 1);
        let outer = self.outer.clone();
        // The entry is dropped only after the borrow has ended: its own drop may look at the stack.
        let entry = self.stack.with_borrow_mut(|stack| std::mem::replace(stack, outer));
        drop(entry);
    }
}
