//! Who has something to do, in the order in which it came up.

const NOBODY: u32 = u32::MAX;
const ABSENT: u32 = u32::MAX - 1;

/// A first-in-first-out list of numbered owners, each in it at most once, linked through the
/// caller's memory. Every operation takes constant time.
#[derive(Debug)]
pub(crate) struct Ready<'m> {
    next: &'m mut [u32],
    head: u32,
    tail: u32,
}

impl<'m> Ready<'m> {
    pub(crate) fn new(next: &'m mut [u32]) -> Self {
        next.fill(ABSENT);
        Self { next, head: NOBODY, tail: NOBODY }
    }

    pub(crate) fn into_memory(self) -> &'m mut [u32] {
        self.next
    }

    pub(crate) fn front(&self) -> Option<u32> {
        (self.head != NOBODY).then_some(self.head)
    }

    pub(crate) fn push(&mut self, owner: u32) {
        if self.next[owner as usize] != ABSENT {
            return;
        }
        self.next[owner as usize] = NOBODY;
        if self.tail == NOBODY {
            self.head = owner;
        } else {
            self.next[self.tail as usize] = owner;
        }
        self.tail = owner;
    }

    pub(crate) fn pop(&mut self) -> Option<u32> {
        let owner = self.front()?;
        self.head = self.next[owner as usize];
        if self.head == NOBODY {
            self.tail = NOBODY;
        }
        self.next[owner as usize] = ABSENT;
        Some(owner)
    }

    /// Moves the first to the end, so that the others have their turn.
    pub(crate) fn rotate(&mut self) {
        if let Some(owner) = self.pop() {
            self.push(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_in_first_out_and_each_once() {
        let mut memory = [0; 4];
        let mut ready = Ready::new(&mut memory);
        for owner in [2, 0, 2, 3] {
            ready.push(owner);
        }
        ready.rotate();
        assert_eq!([ready.pop(), ready.pop(), ready.pop()], [Some(0), Some(3), Some(2)]);
        assert_eq!((ready.pop(), ready.front()), (None, None));
        ready.push(1);
        assert_eq!(ready.front(), Some(1));
    }
}
